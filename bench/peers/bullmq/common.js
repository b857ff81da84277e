// The worker and its clients have this in common.

export const queueName = "default";

export const connection = {
  host: "127.0.0.1",
  port: Number(process.env.BENCH_REDIS_PORT),
  maxRetriesPerRequest: null,
};

// Microseconds since 1970.
export const nowUs = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
