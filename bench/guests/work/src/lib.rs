//! The work of both web guests, so that only the way they are called differs.

use std::hint;

/// The answer of `/`, the same as that of every other guest that is measured.
pub const HELLO: &str = "Hello, world!\n";

/// The length of the answer of `/body`.
pub const BODY_BYTES: usize = 1 << 20;

/// How many rounds [`compute`] makes: about 1 ms, see `bench/guests/README.md`.
const ROUNDS: u32 = 600_000;

/// The answer of `/body`.
pub fn body() -> Vec<u8> {
    vec![b'x'; BODY_BYTES]
}

/// The answer of `/compute`: the same work and the same line each time, without a call of the host.
pub fn compute() -> String {
    // Each round needs the last one's result, so that no compiler makes fewer of them.
    let mut state = hint::black_box(1_u64);
    for _ in 0..ROUNDS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^= state >> 33;
    }
    format!("{state:016x}\n")
}

/// The work of `/loop`.
pub fn endless() -> ! {
    loop {
        hint::black_box(());
    }
}

/// The work of `/bomb`: takes all the memory that there is, a MiB at a time, and touches it. Then it traps.
pub fn bomb() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(hint::black_box(vec![1_u8; 1 << 20]));
    }
}

/// The work of `/flood`: lines on standard output, without end.
pub fn flood() -> ! {
    let lines = format!("{}\n", "a line of a flood, as long as lines are\n".repeat(100).trim_end());
    loop {
        print!("{lines}");
    }
}
