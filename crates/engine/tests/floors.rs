//! The floors of this crate: each module uses only those below it, and no two files use each other.
//! CONTRIBUTING.md says what is on each floor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the lowest to the highest. Modules of one floor don't use each other.
const FLOORS: [&[&str]; 10] = [
    &["bindings", "call", "inspection", "services"],
    &["error"],
    &["threads"],
    &["sandbox"],
    &["capability"],
    &["compiled"],
    &["engine"],
    &["calls"],
    &["instance"],
    &["component", "http"],
];

/// A module's path below the crate, such as `["compiled", "cache"]`.
type ModulePath = Vec<String>;

/// Each module with those that its code names.
fn uses() -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    find(&src, &mut files);
    let modules: BTreeMap<ModulePath, PathBuf> =
        files.into_iter().map(|file| (module_of(file.strip_prefix(&src).unwrap()), file)).collect();
    let known: BTreeSet<&ModulePath> = modules.keys().collect();
    let used = |module: &ModulePath, file: &PathBuf| {
        let named = named(&code(&fs::read_to_string(file).unwrap()), module, file.ends_with("mod.rs"));
        // A path names a module, and then something in it.
        let deepest = |path: ModulePath| {
            (1..=path.len()).rev().map(|len| path[..len].to_vec()).find(|path| known.contains(path))
        };
        named.into_iter().filter_map(deepest).filter(|used| used != module).collect()
    };
    modules.iter().map(|(module, file)| (module.clone(), used(module, file))).collect()
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => find(&path, files),
            false if path.ends_with("src/lib.rs") => {}
            false => files.push(path),
        }
    }
}

fn module_of(file: &Path) -> ModulePath {
    let path = file.with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// A file without its comments and its tests.
fn code(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join(" ")
}

/// All paths from `crate::` and `super::` on.
fn named(code: &str, module: &ModulePath, is_folder: bool) -> Vec<ModulePath> {
    let mut paths = Vec::new();
    let parent = if is_folder { module.clone() } else { module[..module.len() - 1].to_vec() };
    let above = if is_folder { parent[..parent.len() - 1].to_vec() } else { parent };
    for (mark, base) in [("crate::", ModulePath::new()), ("self::", module.clone()), ("super::", above)] {
        for (at, _) in code.match_indices(mark) {
            expand(&code[at + mark.len()..], &base, &mut paths);
        }
    }
    paths
}

/// Adds what a path comes to, `{...}` in it included, and returns what follows it.
fn expand<'a>(text: &'a str, base: &ModulePath, paths: &mut Vec<ModulePath>) -> &'a str {
    if let Some(mut list) = text.strip_prefix('{') {
        while !list.is_empty() {
            list = list.trim_start_matches([' ', ',']);
            if let Some(rest) = list.strip_prefix('}') {
                return rest;
            }
            let rest = expand(list, base, paths);
            list = rest.find([',', '}']).map_or("", |at| &rest[at..]);
        }
        return "";
    }
    let end = text.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(text.len());
    let path = [base.as_slice(), &[text[..end].to_owned()]].concat();
    match text[end..].strip_prefix("::") {
        Some(rest) => expand(rest, &path, paths),
        None => {
            paths.push(path);
            &text[end..]
        }
    }
}

#[test]
fn each_module_uses_only_those_below_it() {
    let floor = |module: &ModulePath| {
        let name = module[0].as_str();
        let floor = FLOORS.iter().position(|floor| floor.contains(&name));
        floor.unwrap_or_else(|| {
            panic!("{name} is on no floor: say on which it is, here and in CONTRIBUTING.md")
        })
    };
    for (module, used) in uses() {
        for below in used {
            assert!(
                module[0] == below[0] || floor(&below) < floor(&module),
                "{} uses {}, which is not below it",
                module.join("::"),
                below.join("::"),
            );
        }
    }
}

#[test]
fn no_two_files_use_each_other_even_by_others() {
    let mut left = uses();
    // Those that use nothing that is left are in no circle.
    loop {
        let done: Vec<ModulePath> =
            left.iter().filter(|(_, used)| used.is_empty()).map(|(module, _)| module.clone()).collect();
        if done.is_empty() {
            break;
        }
        left.retain(|module, _| !done.contains(module));
        left.values_mut().for_each(|used| used.retain(|module| !done.contains(module)));
    }
    let circle: Vec<String> = left
        .iter()
        .map(|(module, used)| {
            let used: Vec<String> = used.iter().map(|module| module.join("::")).collect();
            format!("{} uses {}", module.join("::"), used.join(", "))
        })
        .collect();
    assert!(circle.is_empty(), "these are in a circle, or above one:\n{}", circle.join("\n"));
}

#[test]
fn paths_are_found_in_lists_too() {
    let code = code(
        "use crate::a::{b, c::{D, e}};\nuse super::f; // super::no\n#[cfg(test)]\nmod tests { crate::no }",
    );
    let found = named(&code, &vec!["x".into(), "y".into()], false);
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::b", "a::c::D", "a::c::e", "x::f"]);
}
