//! Whether a component uses component-model async, as WASI 0.3 does: in its types, or in the functions that it lifts and
//! lowers.
//!
//! The items are read one by one, and nothing is built of them. The library's validator would tell the same, but what it
//! builds may be larger than the file by any factor: a few bytes name a type, and an instance of it is a copy. Its reader
//! of types also calls itself for each level of types in types, so that a small file takes all of a stack. Both are left
//! to the compiler, which has bounds on its memory and its time.

use wasmparser::{
    BinaryReader, CanonicalFunction, CanonicalOption, ComponentAlias, ComponentDefinedType,
    ComponentExternName, ComponentImport, ComponentType, ComponentTypeRef, CoreType, Payload,
};

use super::{InspectError, malformed};

/// Levels of component types and instance types in each other: as many as the compiler allows.
const TYPE_DEPTH_MAX: usize = 100;

/// The first byte of a type that has declarations in it.
const COMPONENT_TYPE: u8 = 0x41;
const INSTANCE_TYPE: u8 = 0x42;

/// Whether a section of `file` uses async.
pub(super) fn is_async(payload: &Payload, file: &[u8]) -> Result<bool, InspectError> {
    match payload {
        Payload::ComponentTypeSection(section) => {
            let range = section.range();
            let bytes = file.get(range.clone()).unwrap_or_default();
            in_types(BinaryReader::new(bytes, range.start))
        }
        Payload::ComponentCanonicalSection(section) => {
            let mut found = false;
            for function in section.clone() {
                found |= in_function(&function.map_err(malformed)?);
            }
            Ok(found)
        }
        _ => Ok(false),
    }
}

/// Goes through the types of a section.
fn in_types(mut reader: BinaryReader) -> Result<bool, InspectError> {
    let mut found = false;
    // How many items are left at each level: types first, then the declarations of a type in which more types may be.
    let mut left = vec![reader.read_var_u32().map_err(malformed)?];
    while let Some(last) = left.last_mut() {
        let Some(rest) = last.checked_sub(1) else {
            left.pop();
            continue;
        };
        *last = rest;
        if left.len() > 1 && !declares_type(&mut reader)? {
            continue;
        }
        let first = reader.clone().read_u8().map_err(malformed)?;
        if first != COMPONENT_TYPE && first != INSTANCE_TYPE {
            found |= in_type(&reader.read().map_err(malformed)?);
            continue;
        }
        reader.read_u8().map_err(malformed)?;
        left.push(reader.read_var_u32().map_err(malformed)?);
        if left.len() > 1 + TYPE_DEPTH_MAX {
            return Err(InspectError::TooComplex(format!(
                "its types are nested more than {TYPE_DEPTH_MAX} levels deep"
            )));
        }
    }
    Ok(found)
}

/// Reads a declaration in a type, but for one of a type, of which it reads only that it is one.
fn declares_type(reader: &mut BinaryReader) -> Result<bool, InspectError> {
    let at = reader.original_position();
    match reader.read_u8().map_err(malformed)? {
        0 => reader.read::<CoreType>().map(drop),
        1 => return Ok(true),
        2 => reader.read::<ComponentAlias>().map(drop),
        3 => reader.read::<ComponentImport>().map(drop),
        4 => reader.read::<ComponentExternName>().and_then(|_| reader.read::<ComponentTypeRef>()).map(drop),
        found => {
            return Err(InspectError::Malformed(format!(
                "unknown declaration {found:#x} in a type (at offset {at:#x})"
            )));
        }
    }
    .map_err(malformed)?;
    Ok(false)
}

/// A type that has no others in it. Those that it names have been looked at where they are defined.
fn in_type(found: &ComponentType) -> bool {
    match found {
        ComponentType::Func(function) => function.async_,
        ComponentType::Defined(ComponentDefinedType::Future(_) | ComponentDefinedType::Stream(_)) => true,
        _ => false,
    }
}

fn in_function(function: &CanonicalFunction) -> bool {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options.contains(&CanonicalOption::Async)
        }
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => false,
        // All others make, end and join what runs at once.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmparser::{Validator, WasmFeatures};

    use crate::inspect;

    /// The same as the library's validator says: without async it isn't valid, and with it is.
    #[track_caller]
    fn is_async(text: &str) -> bool {
        let wasm = wat::parse_str(text).unwrap();
        let without = WasmFeatures::all()
            .difference(WasmFeatures::CM_ASYNC | WasmFeatures::CM_ASYNC_STACKFUL)
            .difference(WasmFeatures::CM_MORE_ASYNC_BUILTINS | WasmFeatures::CM_THREADING);
        let validated = |features| Validator::new_with_features(features).validate_all(&wasm).map(drop);
        validated(WasmFeatures::all()).unwrap();
        let found = inspect(&wasm).unwrap().is_async;
        assert_eq!(found, validated(without).is_err(), "{text}");
        found
    }

    #[test]
    fn everything_that_is_async_is_seen() {
        for items in [
            "(type (func async))",
            "(type (stream))",
            "(type (stream u8))",
            "(type (future))",
            "(type $f (future string)) (type (list $f))",
            "(type (instance (type (func async))))",
            "(type (component (type (instance (type (future))))))",
            "(import \"a\" (func async))",
            "(import \"a\" (instance (export \"f\" (func async (param \"x\" u8) (result string)))))",
            "(component (type (stream)))",
            "(core func (canon task.return))",
            "(core func (canon task.cancel))",
            "(core func (canon backpressure.inc))",
            "(core func (canon subtask.drop))",
            "(core func (canon subtask.cancel))",
            "(core func (canon waitable-set.new))",
            "(core func (canon waitable.join))",
            "(core func (canon context.get i32 0))",
            "(core func (canon thread.yield))",
            "(type $s (stream u8)) (core func (canon stream.new $s))",
            "(import \"a\" (func $a async)) (core module $m (memory (export \"m\") 1)) (core instance $i (instantiate $m))
             (alias core export $i \"m\" (core memory $m)) (core func (canon lower (func $a) async (memory $m)))",
        ] {
            assert!(is_async(&format!("(component {items})")), "{items}");
        }
    }

    #[test]
    fn nothing_else_is_taken_for_async() {
        for items in [
            "",
            "(type (func (param \"async\" string) (result u8)))",
            "(type (list u8)) (type (option string)) (type (result)) (type (tuple u8 u16)) (type (flags \"a\" \"b\"))
             (type (enum \"a\")) (type (record (field \"a\" u8))) (type (variant (case \"a\" string) (case \"b\")))",
            "(type (component (core type (module (import \"a\" \"b\" (func))))
                (type $t u8) (type (instance (alias outer 1 $t (type $x)) (export \"x\" (type (eq $x)))))
                (import \"r\" (type (sub resource))) (export \"f\" (func))))",
            "(type $r (resource (rep i32))) (core func (canon resource.new $r)) (core func (canon resource.drop $r))
             (core func (canon resource.rep $r))",
            "(import \"a\" (func $a)) (core func $f (canon lower (func $a))) (core module $m (func (export \"f\")))
             (core instance $i (instantiate $m)) (func (canon lift (core func $i \"f\")))",
        ] {
            assert!(!is_async(&format!("(component {items})")), "{items}");
        }
        assert!(!is_async("(module (func (export \"_start\")))"));
    }

    #[test]
    fn types_may_be_nested_as_deep_as_the_compiler_allows() {
        let nested = |levels: usize| {
            let types = [super::COMPONENT_TYPE, 1, 1].repeat(levels);
            let mut section = [&[1], types.as_slice(), b"\x7f"].concat();
            let mut length = section.len();
            let mut wasm = b"\0asm\x0d\0\x01\0\x07".to_vec();
            while length > 0x7f {
                wasm.push(0x80 | u8::try_from(length & 0x7f).unwrap());
                length >>= 7;
            }
            wasm.push(u8::try_from(length).unwrap());
            wasm.append(&mut section);
            inspect(&wasm)
        };
        assert!(nested(super::TYPE_DEPTH_MAX).is_ok());
        for levels in [super::TYPE_DEPTH_MAX + 1, 100_000, 1_000_000] {
            let refused = nested(levels).unwrap_err().to_string();
            assert!(refused.contains("types are nested more than 100 levels deep"), "{refused}");
        }
    }

    proptest! {
        /// Sections of random bytes, most of which mean something.
        #[test]
        fn whatever_comes_is_read_or_refused(
            id in prop::sample::select(&[7_u8, 8][..]),
            body in prop::collection::vec(prop::sample::select(&[0_u8, 1, 2, 3, 4, 5, 0x40, 0x41, 0x42, 0x43, 0x65, 0x66, 0x70, 0x72, 0x7f][..]), 0..100),
        ) {
            let length = u8::try_from(body.len()).unwrap();
            let wasm = [b"\0asm\x0d\0\x01\0".as_slice(), &[id, length], &body].concat();
            let _ = inspect(&wasm);
        }
    }
}
