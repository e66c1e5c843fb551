//! The pages of documentation: lines that can be read, and links that lead somewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The longest line of prose, in characters. Tables and code may be longer.
const MAX_WIDTH: usize = 99;

/// A page, and what is to be known of it.
struct Page {
    /// Below the workspace.
    path: PathBuf,
    text: String,
}

/// Checks all pages.
///
/// # Errors
/// Lists every line that is too long, and every link that leads nowhere.
pub(super) fn check(workspace: &Path) -> Result<()> {
    let mut pages = Vec::new();
    collect(workspace, workspace, &mut pages)?;
    let mut complaints = String::new();
    for page in &pages {
        complain_of_width(page, &mut complaints);
        complain_of_links(page, &pages, workspace, &mut complaints);
    }
    if !complaints.is_empty() {
        bail!("the documentation breaks the project's own rules:\n{complaints}");
    }
    Ok(())
}

/// What is built, and what is somebody's own.
fn is_other(name: &str) -> bool {
    name.starts_with('.') || ["target", "node_modules"].contains(&name)
}

fn collect(workspace: &Path, dir: &Path, pages: &mut Vec<Page>) -> Result<()> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if is_other(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if path.is_dir() {
            collect(workspace, &path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let path = path.strip_prefix(workspace).unwrap_or(&path).to_owned();
            pages.push(Page { path, text });
        }
    }
    Ok(())
}

/// The lines that are prose, with their numbers: no code, which is between fences.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().zip(1..).filter_map(move |(line, number)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((number, line))
    })
}

fn complain_of_width(page: &Page, complaints: &mut String) {
    for (number, line) in prose(&page.text) {
        let width = line.chars().count();
        // Neither a row of a table nor one word can be broken.
        let is_whole = line.starts_with('|') || !line.trim().contains(' ');
        if width > MAX_WIDTH && !is_whole {
            let path = page.path.display();
            let _ = writeln!(complaints, "{path}:{number}: {width} characters");
        }
    }
}

fn complain_of_links(page: &Page, pages: &[Page], workspace: &Path, complaints: &mut String) {
    for (number, line) in prose(&page.text) {
        for target in links(line) {
            if let Err(why) = follow(page, target, pages, workspace) {
                let path = page.path.display();
                let _ = writeln!(complaints, "{path}:{number}: `{target}`: {why}");
            }
        }
    }
}

/// Where the links of a line lead.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let ends = line.match_indices("](").map(|(at, found)| at + found.len());
    ends.filter_map(|from| {
        let is_code = line[..from].matches('`').count() % 2 == 1;
        let target = line[from..].split(')').next()?;
        (!is_code).then_some(target)
    })
}

fn follow(from: &Page, target: &str, pages: &[Page], workspace: &Path) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() {
        from.path.clone()
    } else {
        let beside = from.path.parent().unwrap_or(Path::new(""));
        let path = normal(&beside.join(file)).ok_or("leads out of the project")?;
        if !workspace.join(&path).exists() {
            return Err(format!("there is no {}", path.display()));
        }
        path
    };
    if anchor.is_empty() {
        return Ok(());
    }
    let page = pages.iter().find(|page| page.path == path);
    let page = page.ok_or("only a page has headings")?;
    if !anchors(&page.text).contains(anchor) {
        return Err(format!("{} has no such heading", path.display()));
    }
    Ok(())
}

/// A path without `.` and `..`, if it stays where it begins.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => {}
            Component::ParentDir => normal.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

/// What the headings of a page are called in links, as the usual hosts of code have it.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    let titles = headings.map(|(_, line)| line.trim_start_matches('#').trim());
    titles.map(anchor).collect()
}

fn anchor(title: &str) -> String {
    let kept = title.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then_some(letter),
    });
    kept.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complain(pages: &[(&str, &str)]) -> String {
        let pages: Vec<Page> = pages
            .iter()
            .map(|(path, text)| Page {
                path: path.into(),
                text: (*text).to_owned(),
            })
            .collect();
        let mut complaints = String::new();
        for page in &pages {
            complain_of_width(page, &mut complaints);
            complain_of_links(page, &pages, crate::build::workspace(), &mut complaints);
        }
        complaints
    }

    #[test]
    fn long_prose_is_named_with_its_line_and_tables_and_code_are_not() {
        let long = format!("{} a", "a".repeat(98));
        assert_eq!(complain(&[("a.md", &long[1..])]), "");
        let text = format!("# A\n\n{long}\n");
        assert_eq!(complain(&[("a.md", &text)]), "a.md:3: 100 characters\n");
        let text = format!("| {long} |\n```sh\n{long}\n```\n");
        assert_eq!(complain(&[("a.md", &text)]), "");
    }

    #[test]
    fn link_to_what_is_not_there_is_named_with_its_line() {
        let other = (
            "docs/access.md",
            "# Who, and what: `[access]`\n\n### In 2 parts\n",
        );
        let right = "[a](docs/access.md) [b](docs/access.md#who-and-what-access) [c](Cargo.toml)\n\
            [d](https://example.org/#e) `x](y)` [f](docs/access.md#in-2-parts)\n";
        assert_eq!(complain(&[("README.md", right), other]), "");
        for (wrong, why) in [
            ("docs/none.md", "there is no docs/none.md"),
            ("docs/access.md#c", "docs/access.md has no such heading"),
            ("#d", "README.md has no such heading"),
            ("../e.md", "leads out of the project"),
            ("Cargo.toml#workspace", "only a page has headings"),
        ] {
            let text = format!("# A\n[x]({wrong})\n");
            let complaint = format!("README.md:2: `{wrong}`: {why}\n");
            assert_eq!(complain(&[("README.md", &text), other]), complaint);
        }
    }

    #[test]
    fn links_are_relative_to_their_page() {
        let page = |link: &str| format!("[x]({link})\n");
        assert_eq!(complain(&[("docs/a.md", &page("../README.md"))]), "");
        assert_eq!(complain(&[("docs/a.md", &page("access.md"))]), "");
        let complaints = complain(&[("docs/a.md", &page("docs/access.md"))]);
        assert!(complaints.contains("there is no docs/docs/access.md"));
    }
}
