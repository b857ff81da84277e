//! How much one instance of a component is made of, found without making any of it.
//!
//! A component instantiates the modules and components that it holds, and these do the same: a file of a kilobyte can ask
//! for millions of instances by instantiating each part twice. [`Structure`] follows a file's sections in their order and
//! only adds up, so that it takes the time of reading them. Sums that would overflow stay at their maximum.
//!
//! A component can also be given components, by import or out of an instance, and instantiate those. Each of them is
//! counted as the largest one that could be meant.

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Instance, Payload,
};

use super::{InspectError, malformed};
use crate::inspection::Footprint;

/// Levels of components in components. Compositions of real programs have two or three.
const DEPTH_MAX: usize = 100;

/// Component instances inside one instance. Compositions of real programs have some dozens.
const INSTANCES_MAX: u64 = 1_000;

/// Core instances, memories and tables of one instance: what the engine's pool has room for.
pub(crate) const CORE_ITEMS_MAX: u32 = 100;

/// Bytes of a page where a memory doesn't say: 64 KiB.
const PAGE_SIZE_LOG2: u32 = 16;

/// What one instance of a part needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    /// Component instances.
    instances: u64,
    core_instances: u64,
    memories: u64,
    tables: u64,
    /// Of all memories, as they begin.
    memory_bytes: u64,
    /// Of all tables, as they begin.
    table_elements: u64,
    /// Of the largest table, as it begins.
    table_elements_max: u64,
    /// Instances of components that it is given.
    given: u64,
}

/// A module or a component whose sections are being read.
struct Level {
    is_component: bool,
    size: Size,
    /// The index space of core modules.
    modules: Vec<Size>,
    /// The index space of components.
    components: Vec<Size>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Structure {
    levels: Vec<Level>,
    /// At least as large, in each respect, as any module or component that has been read whole.
    largest: Size,
    /// Of the whole file, once it has been read.
    root: Size,
}

impl Structure {
    /// Follows the next section.
    pub(super) fn add(&mut self, payload: &Payload) -> Result<(), InspectError> {
        self.follow(payload).map_err(malformed)?;
        if self.levels.len() > DEPTH_MAX {
            return Err(InspectError::TooComplex(format!(
                "its components are nested more than {DEPTH_MAX} levels deep"
            )));
        }
        let size = self.levels.last().map_or(self.root, |level| level.size);
        size.check()
    }

    /// How deep the section is that comes next: 1 in the file's own component or module.
    pub(super) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// What one instance of the file takes.
    pub(super) fn footprint(&self) -> Footprint {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Footprint {
            core_instances: narrow(self.root.core_instances),
            memories: narrow(self.root.memories),
            tables: narrow(self.root.tables),
            memory_bytes: self.root.memory_bytes,
            table_elements: self.root.table_elements,
            table_elements_max: self.root.table_elements_max,
        }
    }

    fn follow(&mut self, payload: &Payload) -> Result<(), BinaryReaderError> {
        if let Payload::Version { encoding, .. } = payload {
            self.levels.push(Level::new(*encoding == Encoding::Component));
            return Ok(());
        }
        if let Payload::End(_) = payload {
            self.end_level();
            return Ok(());
        }
        let largest = self.largest;
        let outer = |levels: &[Level], count: u32| levels.len().checked_sub(1 + count as usize);
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        match payload {
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let memory = memory?;
                    let page = memory.page_size_log2.unwrap_or(PAGE_SIZE_LOG2);
                    let bytes = memory.initial.saturating_mul(1_u64.checked_shl(page).unwrap_or(u64::MAX));
                    level.size.memories = level.size.memories.saturating_add(1);
                    level.size.memory_bytes = level.size.memory_bytes.saturating_add(bytes);
                }
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    let initial = table?.ty.initial;
                    level.size.tables = level.size.tables.saturating_add(1);
                    level.size.table_elements = level.size.table_elements.saturating_add(initial);
                    level.size.table_elements_max = level.size.table_elements_max.max(initial);
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        let module = level.modules.get(module_index as usize).copied().unwrap_or(largest);
                        level.size.add(module, 1);
                        level.size.core_instances = level.size.core_instances.saturating_add(1);
                        if level.size.check().is_err() {
                            return Ok(());
                        }
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        let component = level.components.get(component_index as usize);
                        let component = component.copied().unwrap_or(largest).filled(largest);
                        level.size.add(component, 1);
                        level.size.instances = level.size.instances.saturating_add(1);
                        if level.size.check().is_err() {
                            return Ok(());
                        }
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    match import?.ty {
                        ComponentTypeRef::Module(_) => level.modules.push(largest),
                        ComponentTypeRef::Component(_) => level.components.push(largest.given()),
                        _ => {}
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                // An export is one more item of its index space.
                for export in section.clone() {
                    let export = export?;
                    let at = export.index as usize;
                    match export.kind {
                        ComponentExternalKind::Module => {
                            level.modules.push(level.modules.get(at).copied().unwrap_or(largest));
                        }
                        ComponentExternalKind::Component => {
                            level.components.push(level.components.get(at).copied().unwrap_or(largest));
                        }
                        _ => {}
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    match alias? {
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => {
                            self.push(|level| &mut level.modules, largest);
                        }
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                            self.push(|level| &mut level.components, largest.given());
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, index } => {
                            let from = outer(&self.levels, count).and_then(|at| self.levels.get(at));
                            let module = from.and_then(|level| level.modules.get(index as usize));
                            let module = module.copied().unwrap_or(largest);
                            self.push(|level| &mut level.modules, module);
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            let from = outer(&self.levels, count).and_then(|at| self.levels.get(at));
                            let component = from.and_then(|level| level.components.get(index as usize));
                            let component = component.copied().unwrap_or(largest);
                            self.push(|level| &mut level.components, component);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, space: impl Fn(&mut Level) -> &mut Vec<Size>, size: Size) {
        if let Some(level) = self.levels.last_mut() {
            space(level).push(size);
        }
    }

    fn end_level(&mut self) {
        let Some(ended) = self.levels.pop() else { return };
        self.largest = self.largest.max(ended.size);
        match self.levels.last_mut() {
            Some(parent) if ended.is_component => parent.components.push(ended.size),
            Some(parent) => parent.modules.push(ended.size),
            None => {
                self.root = ended.size;
                // A core module is one instance of itself.
                self.root.core_instances += u64::from(!ended.is_component);
            }
        }
    }
}

impl Level {
    fn new(is_component: bool) -> Level {
        Level { is_component, size: Size::default(), modules: Vec::new(), components: Vec::new() }
    }
}

impl Size {
    /// Adds as many of these.
    fn add(&mut self, part: Size, times: u64) {
        let add = |sum: u64, each: u64| sum.saturating_add(each.saturating_mul(times));
        self.instances = add(self.instances, part.instances);
        self.core_instances = add(self.core_instances, part.core_instances);
        self.memories = add(self.memories, part.memories);
        self.tables = add(self.tables, part.tables);
        self.memory_bytes = add(self.memory_bytes, part.memory_bytes);
        self.table_elements = add(self.table_elements, part.table_elements);
        self.given = add(self.given, part.given);
        if times > 0 {
            self.table_elements_max = self.table_elements_max.max(part.table_elements_max);
        }
    }

    /// A component that comes from elsewhere, and is at most this large as far as is known here.
    fn given(self) -> Size {
        Size { given: self.given.saturating_add(1), ..self }
    }

    /// This component once it has been given the components that it wants, each at most as large as `largest`.
    fn filled(self, largest: Size) -> Size {
        let mut filled = Size { given: 0, ..self };
        filled.add(Size { instances: largest.instances.saturating_add(1), ..largest }, self.given);
        filled
    }

    /// The larger one in each respect.
    fn max(self, other: Size) -> Size {
        Size {
            instances: self.instances.max(other.instances),
            core_instances: self.core_instances.max(other.core_instances),
            memories: self.memories.max(other.memories),
            tables: self.tables.max(other.tables),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            table_elements: self.table_elements.max(other.table_elements),
            table_elements_max: self.table_elements_max.max(other.table_elements_max),
            given: self.given.max(other.given),
        }
    }

    fn check(&self) -> Result<(), InspectError> {
        let core_max = u64::from(CORE_ITEMS_MAX);
        let found = [
            (self.instances, INSTANCES_MAX, "component instances"),
            (self.core_instances, core_max, "core instances"),
            (self.memories, core_max, "memories"),
            (self.tables, core_max, "tables"),
        ];
        match found.into_iter().find(|(count, max, _)| count > max) {
            None => Ok(()),
            Some((_, max, what)) => {
                Err(InspectError::TooComplex(format!("one instance of it has more than {max} {what}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
            "(component (component $c0 (core module $m (memory 1)) (core instance (instantiate $m)))"
                .to_owned();
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
        };
        assert_eq!(found, expected);
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
        let mut text =
            "(component (component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
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
    fn sizes_past_all_bounds_stay_at_the_maximum() {
        let text = "(component
            (core module $m (memory i64 0x1_0000_0000_0000))
            (core instance (instantiate $m))
            (core instance (instantiate $m)))";
        assert_eq!(footprint(text).memory_bytes, u64::MAX);
    }
}
