use super::*;
use crate::inspect;

fn footprint(text: &str) -> Footprint {
    inspect(&wat::parse_str(text).unwrap()).unwrap().footprint
}

fn refused(text: &str) -> String {
    inspect(&wat::parse_str(text).unwrap()).unwrap_err().to_string()
}

/// Components of which each instantiates the one before it twice, by what `reach` makes of the one before.
fn doubling(levels: usize, reach: impl Fn(usize) -> String) -> String {
    let mut text =
        "(component (component $c0 (core module $m (memory 1)) (core instance (instantiate $m)))".to_owned();
    for level in 1..=levels {
        let before = reach(level - 1);
        text += &format!(
            "(component $c{level} {before} (instance (instantiate $b)) (instance (instantiate $b)))"
        );
    }
    text + &format!("(instance (instantiate $c{levels})))")
}

#[test]
fn each_instance_of_a_module_counts() {
    let found = footprint(
        "(component
            (core module $m (memory 2) (table 10 funcref) (table 30 funcref))
            (component $twice (core module $n (memory 1)) (core instance (instantiate $n)) (core instance (instantiate $n)))
            (core instance (instantiate $m))
            (instance (instantiate $twice))
            (component $unused (core module $n (memory 100)) (core instance (instantiate $n))))",
    );
    let expected = Footprint {
        core_instances: 3,
        memories: 3,
        tables: 2,
        memory_bytes: 4 << 16,
        table_elements: 40,
        table_elements_max: 30,
        stacks: 1,
    };
    assert_eq!(found, expected);
}

#[test]
fn each_instance_of_a_component_with_code_has_a_stack_where_calls_may_wait() {
    let text = |kind: &str| {
        format!(
            "(component
                (core module $m (func (export \"f\")))
                (core instance $m (instantiate $m))
                (core instance (instantiate $m))
                (func {kind} (canon lift (core func $m \"f\")))
                (component $inner (core module $n) (core instance (instantiate $n)))
                (component $pair (alias outer 1 $inner (component $other))
                    (instance (instantiate $other)) (instance (instantiate $other)))
                (instance (instantiate $inner))
                (instance (instantiate $pair))
                (component $shim)
                (instance (instantiate $shim)))"
        )
    };
    assert_eq!(footprint(&text("async")).stacks, 4);
    assert_eq!(footprint(&text("")).stacks, 1);
}

#[test]
fn instances_that_are_only_lists_of_exports_take_no_slot() {
    let text = "(component
        (core module $m (func (export \"f\")))
        (core instance $i (instantiate $m))
        (core instance (export \"f\" (func $i \"f\"))))";
    assert_eq!(footprint(text).core_instances, 1);
}

#[test]
fn a_core_module_is_one_instance() {
    let found = footprint("(module (memory 3) (func (export \"_start\")))");
    assert_eq!((found.core_instances, found.memories, found.memory_bytes), (1, 1, 3 << 16));
}

#[test]
fn what_doubles_at_each_level_is_refused() {
    let outer = |before| format!("(alias outer 1 $c{before} (component $b))");
    assert_eq!(footprint(&doubling(5, outer)).memories, 32);
    for levels in [7, 24, 64] {
        assert!(refused(&doubling(levels, outer)).contains("more than 100 core instances"), "{levels}");
    }
}

#[test]
fn what_doubles_by_components_that_are_given_is_refused() {
    let mut text = "(component (component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..=24 {
        let before = level - 1;
        text += &format!(
            "(component $d{level} (import \"b\" (component $b)) (instance (instantiate $b)) (instance (instantiate $b)) (export \"b\" (component $b)))
             (instance $i{level} (instantiate $d{level} (with \"b\" (component $c{before}))))
             (component $c{level} (alias outer 1 $c{before} (component $b)) (instance (instantiate $b)) (instance (instantiate $b)))"
        );
    }
    assert!(refused(&(text + ")")).contains("more than 100 core instances"));
}

#[test]
fn what_is_nested_too_deep_is_refused() {
    assert!(inspect(&nested(DEPTH_MAX)).is_ok());
    for levels in [DEPTH_MAX + 1, 100_000] {
        let refused = inspect(&nested(levels)).unwrap_err().to_string();
        assert!(refused.contains("more than 100 levels deep"), "{refused}");
    }
}

/// A component in a component in a component ..., as bytes: the text format has a bound of its own.
fn nested(levels: usize) -> Vec<u8> {
    const COMPONENT_SECTION: u8 = 4;
    // From the inside out, so that each length is known; reversed, so that each level is added at the end.
    let mut reversed: Vec<u8> = Vec::new();
    for level in 0..levels {
        reversed.extend(b"\0asm\x0d\0\x01\0".iter().rev());
        if level + 1 < levels {
            reversed.extend(leb128(reversed.len()).iter().rev());
            reversed.push(COMPONENT_SECTION);
        }
    }
    reversed.reverse();
    reversed
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

#[test]
fn parts_that_are_only_named_count_too() {
    // Each alias is four bytes.
    let aliases = |count: usize| {
        let mut section = leb128(count);
        section.extend(b"\x04\x02\0\0".repeat(count));
        let (before, length) = (b"\x04\x08\0asm\x0d\0\x01\0\x06", leb128(section.len()));
        inspect(&[b"\0asm\x0d\0\x01\0", before.as_slice(), &length, &section].concat())
    };
    assert!(aliases(PARTS_MAX - 1).is_ok());
    for count in [PARTS_MAX, 1_000_000] {
        let refused = aliases(count).unwrap_err().to_string();
        assert!(refused.contains("it has more than 1000 components"), "{refused}");
    }
    let modules = "(core module)".repeat(PARTS_MAX + 1);
    assert!(refused(&format!("(component {modules})")).contains("it has more than 1000 modules"));
}

#[test]
fn functions_of_all_modules_are_counted() {
    let module = |functions: usize| {
        let section = |id: u8, item: &[u8]| {
            let items = [leb128(functions), item.repeat(functions)].concat();
            [vec![id], leb128(items.len()), items].concat()
        };
        let types = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0".to_vec();
        [types, section(3, b"\0"), section(10, b"\x02\0\x0b")].concat()
    };
    let refused = inspect(&module(1_000_000)).unwrap_err().to_string();
    assert!(refused.contains("it has more than 250000 functions"), "{refused}");
    let half = module(125_001);
    let of_component = [vec![1], leb128(half.len()), half].concat();
    let wasm = [b"\0asm\x0d\0\x01\0".as_slice(), &of_component, &of_component].concat();
    let refused = inspect(&wasm).unwrap_err().to_string();
    assert!(refused.contains("it has more than 250000 functions"), "{refused}");
}

#[test]
fn sizes_past_all_bounds_stay_at_the_maximum() {
    let text = "(component
        (core module $m (memory i64 0x1_0000_0000_0000))
        (core instance (instantiate $m))
        (core instance (instantiate $m)))";
    assert_eq!(footprint(text).memory_bytes, u64::MAX);
}
