//! Links between the Markdown files: each relative one must lead to a file or folder that exists.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Goes through every Markdown file below `folder`, and names all links that lead nowhere.
pub(crate) fn check(folder: &Path) -> Result<()> {
    let mut dead = Vec::new();
    collect_dead(folder, &mut dead)?;
    ensure!(dead.is_empty(), "links that lead nowhere:\n    {}", dead.join("\n    "));
    Ok(())
}

fn collect_dead(folder: &Path, dead: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                collect_dead(&path, dead)?;
            }
        } else if path.extension() == Some(OsStr::new("md")) {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let gone = relative_links(&text).filter(|link| !folder.join(link).exists());
            dead.extend(gone.map(|link| format!("{}: {link}", path.display())));
        }
    }
    Ok(())
}

/// The text of each `](...)`, without its `#heading`; not in code blocks, and no URLs.
fn relative_links(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    let links = prose.flat_map(|prose| prose.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    links
        .map(|link| link.split('#').next().unwrap_or(link))
        .filter(|link| !link.is_empty() && !link.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_prose_are_found_and_urls_and_code_are_not() {
        let text = "[a](a.md#top) [b](https://b.example/) [c](#c)\n```\nx[0](d.md)\n```\n[e](../e)";
        assert_eq!(relative_links(text).collect::<Vec<_>>(), ["a.md", "../e"]);
    }
}
