//! Files of WebAssembly, byte by byte: those that no tool would write.

/// The beginning of a component.
pub(crate) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// The beginning of a core module.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A number as WebAssembly writes it.
pub(crate) fn number(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A section of a component or a module.
pub(crate) fn section(id: u8, contents: &[u8]) -> Vec<u8> {
    [&[id], number(contents.len()).as_slice(), contents].concat()
}

/// A list of the same item over and over.
pub(crate) fn repeated(item: &[u8], times: usize) -> Vec<u8> {
    [number(times), item.repeat(times)].concat()
}

pub(crate) fn name(name: &str) -> Vec<u8> {
    [&number(name.len()), name.as_bytes()].concat()
}

/// A command of WASI 0.1 with so many functions, each with this code; the first one is its `main`.
pub(crate) fn command(code: &[u8], functions: usize) -> Vec<u8> {
    let body = [&[0], code, &[0x0b]].concat();
    let body = [number(body.len()), body].concat();
    [
        MODULE.to_vec(),
        section(1, b"\x01\x60\0\0"),
        section(3, &repeated(b"\0", functions)),
        section(7, &[&[1], name("_start").as_slice(), &[0, 0]].concat()),
        section(10, &repeated(&body, functions)),
    ]
    .concat()
}

/// A command whose `main` has so many loops in each other: the compiler takes a minute for 30,000 of them.
pub(crate) fn nested_loops(levels: usize) -> Vec<u8> {
    command(&[b"\x03\x40".repeat(levels), b"\x0b".repeat(levels)].concat(), 1)
}
