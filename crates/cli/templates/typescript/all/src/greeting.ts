// The part that needs no host, and is tested without one: `npm test`.

export function greeting(name?: string): string {
  return `Hello, ${name || "world"}!\n`;
}
