//! Versions of a guest: its component with other bytes in it, so that its digest is another one.

use std::fs;

use super::guest_file;

/// The text in `web-test` that `/version` answers.
const MARK: &[u8; 32] = b"the version of this component: 0";

/// A guest's component as another version. It has a custom section of that name, which no code sees; and `web-test`
/// answers `/version` with it.
pub(crate) fn variant(guest: &str, version: &str) -> Vec<u8> {
    assert!(version.len() <= MARK.len(), "{version:?} is too long");
    let mut component = fs::read(guest_file(guest)).unwrap();
    if let Some(at) = component.windows(MARK.len()).position(|bytes| bytes == MARK) {
        component[at..at + MARK.len()].fill(b' ');
        component[at..at + version.len()].copy_from_slice(version.as_bytes());
    }
    component.extend_from_slice(&custom_section(version));
    component
}

/// Section 0: its length, the length of its name, the name. Lengths below 128 are one byte in LEB128.
fn custom_section(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    assert!(length < 127, "{name:?} is too long");
    [&[0, length + 1, length], name.as_bytes()].concat()
}
