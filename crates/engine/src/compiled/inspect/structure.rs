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

/// Modules, or components, that one component can name: as many as the compiler allows. Each may be named in four bytes.
const PARTS_MAX: usize = 1_000;

/// Functions of all modules in a file. The largest programs that are known have a fifth of that.
const FUNCTIONS_MAX: u64 = 250_000;

/// Core instances, memories and tables of one instance: what the engine's pool has room for.
pub(crate) const CORE_ITEMS_MAX: u32 = 100;

/// Bytes of a page where a memory doesn't say: 64 KiB.
const PAGE_SIZE_LOG2: u32 = 16;

/// The needs of one instance of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    /// Component instances, and those of them that have core instances of their own.
    instances: u64,
    with_code: u64,
    core_instances: u64,
    memories: u64,
    tables: u64,
    /// Bytes of all memories, as they begin.
    memory_bytes: u64,
    /// Elements of all tables, as they begin.
    table_elements: u64,
    /// Elements of the largest table, as it begins.
    table_elements_max: u64,
    /// Instances of components that it is given.
    given: u64,
}

/// A module or a component whose sections are being read.
struct Level {
    is_component: bool,
    has_code: bool,
    size: Size,
    /// The index space of core modules.
    modules: Parts,
    /// The index space of components.
    components: Parts,
}

/// An index space, as far as it is kept: one more than there may be.
#[derive(Default)]
struct Parts(Vec<Size>);

/// See the module.
#[derive(Default)]
pub(super) struct Structure {
    levels: Vec<Level>,
    /// At least as large, in each respect, as any module or component that has been read whole.
    largest: Size,
    /// The needs of one instance of the whole file, once the file has been read.
    root: Size,
    /// Functions of all modules so far, whether they are instantiated or not.
    functions: u64,
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
        at_most(self.functions, FUNCTIONS_MAX, "it has", "functions")?;
        match self.levels.last() {
            Some(level) => level.check(),
            None => self.root.check(),
        }
    }

    /// How deep the section is that comes next: 1 in the file's own component or module.
    pub(super) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The footprint of one instance of the file.
    pub(super) fn footprint(&self, is_async: bool) -> Footprint {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Footprint {
            core_instances: narrow(self.root.core_instances),
            memories: narrow(self.root.memories),
            tables: narrow(self.root.tables),
            memory_bytes: self.root.memory_bytes,
            table_elements: self.root.table_elements,
            table_elements_max: self.root.table_elements_max,
            stacks: if is_async { narrow(self.root.with_code).max(1) } else { 1 },
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
            Payload::FunctionSection(section) => {
                self.functions = self.functions.saturating_add(section.count().into());
            }
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
                        let module = level.modules.get(module_index).unwrap_or(largest);
                        level.size.add(module, 1);
                        let is_first = !std::mem::replace(&mut level.has_code, true);
                        level.size.with_code = level.size.with_code.saturating_add(is_first.into());
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
                        let component = level.components.get(component_index).unwrap_or(largest);
                        let component = component.filled(largest);
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
                    match export.kind {
                        ComponentExternalKind::Module => {
                            level.modules.push(level.modules.get(export.index).unwrap_or(largest));
                        }
                        ComponentExternalKind::Component => {
                            level.components.push(level.components.get(export.index).unwrap_or(largest));
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
                            let module = from.and_then(|level| level.modules.get(index)).unwrap_or(largest);
                            self.push(|level| &mut level.modules, module);
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            let from = outer(&self.levels, count).and_then(|at| self.levels.get(at));
                            let component =
                                from.and_then(|level| level.components.get(index)).unwrap_or(largest);
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

    fn push(&mut self, space: impl Fn(&mut Level) -> &mut Parts, size: Size) {
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
        let size = Size::default();
        Level { is_component, has_code: false, size, modules: Parts::default(), components: Parts::default() }
    }

    fn check(&self) -> Result<(), InspectError> {
        let parts = [(&self.modules, "modules"), (&self.components, "components")];
        for (Parts(parts), what) in parts {
            at_most(parts.len() as u64, PARTS_MAX as u64, "it has", what)?;
        }
        self.size.check()
    }
}

impl Parts {
    fn push(&mut self, size: Size) {
        if self.0.len() <= PARTS_MAX {
            self.0.push(size);
        }
    }

    fn get(&self, index: u32) -> Option<Size> {
        self.0.get(index as usize).copied()
    }
}

impl Size {
    /// Adds as many of these.
    fn add(&mut self, part: Size, times: u64) {
        let add = |sum: u64, each: u64| sum.saturating_add(each.saturating_mul(times));
        self.instances = add(self.instances, part.instances);
        self.with_code = add(self.with_code, part.with_code);
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
            with_code: self.with_code.max(other.with_code),
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
        found
            .into_iter()
            .try_for_each(|(count, max, what)| at_most(count, max, "one instance of it has", what))
    }
}

fn at_most(count: u64, max: u64, found: &str, what: &str) -> Result<(), InspectError> {
    match count <= max {
        true => Ok(()),
        false => Err(InspectError::TooComplex(format!("{found} more than {max} {what}"))),
    }
}

#[cfg(test)]
mod tests;
