//! The report as people read it.

use super::{
    FileChange, Report,
    catalogue::{Wanted, Weight},
    host::Undone,
    plan::{Reading, Standing},
};

/// Where reasons are broken, for terminals of 80 columns.
const WIDTH: usize = 78;

pub(super) fn text(report: &Report) -> String {
    let Report {
        applied,
        undone,
        failed,
        file,
        settings,
        open_files,
        open_files_wanted,
    } = report;
    let mut text = String::new();
    for change in applied {
        text += &format!("{}: {} -> {}\n", change.key, change.before, change.after);
    }
    for undone in undone {
        text += &match undone {
            Undone::Restored(change) => format!("{}: back to {}\n", change.key, change.before),
            Undone::Left(change) => {
                format!("{}: changed by others since, and left\n", change.key)
            }
        };
    }
    for failed in failed {
        text += &format!("{}: {}\n", failed.key, failed.why);
    }
    match file {
        Some(FileChange::Written(path)) => {
            text += &format!("{}: written for the next boot\n", path.display());
        }
        Some(FileChange::Removed(path)) => text += &format!("{}: removed\n", path.display()),
        None => {}
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for (at, reading) in settings.iter().enumerate() {
        text += &setting(reading);
        // What many have in common is told once.
        let next = settings.get(at + 1).map(|next| next.why);
        if next != Some(reading.why) {
            text += &wrapped("         ", reading.why);
        }
    }
    if let (Some(limit), Some(wanted)) = (open_files, open_files_wanted)
        && limit < wanted
    {
        let why = format!(
            "open files: {limit} here, {wanted} wanted, as every client is one. Set LimitNOFILE={wanted} in the \
             systemd unit: limits.conf is for logins, and does not reach services."
        );
        text += &format!("\n{}", wrapped("", &why));
    }
    text
}

/// A line with how it stands.
fn setting(reading: &Reading) -> String {
    let mark = match (reading.standing, reading.weight) {
        (Standing::Good, _) => "ok",
        (Standing::Wrong, Weight::Matters) => "CHANGE",
        (Standing::Wrong, Weight::Sometimes | Weight::Obsolete) => "perhaps",
        (Standing::Missing, _) => "missing",
        (Standing::Untouched, _) => "leave",
    };
    let current = reading.current.as_ref();
    let current = current.map_or_else(String::new, |current| format!(" = {current}"));
    let wanted = match reading.wanted {
        Wanted::AtLeast(bound) => format!(", at least {bound}"),
        Wanted::AtMost(bound) => format!(", at most {bound}"),
        Wanted::Untouched => String::new(),
    };
    format!("{mark:<7}  {}{current}{wanted}\n", reading.key)
}

/// Lines of words, each with `indent` before.
fn wrapped(indent: &str, words: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in words.split_whitespace() {
        let is_full = indent.len() + line.chars().count() + 1 + word.chars().count() > WIDTH;
        if is_full && !line.is_empty() {
            text += &format!("{indent}{line}\n");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    text + &format!("{indent}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::{WIDTH, wrapped};

    #[test]
    fn no_line_is_wider_than_a_terminal_and_no_word_is_lost() {
        let words = "of all that was said, nothing may be lost ".repeat(10);
        let text = wrapped("    ", &words);
        assert!(
            text.lines()
                .all(|line| line.starts_with("    ") && line.len() <= WIDTH)
        );
        let back: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(back, words.split_whitespace().collect::<Vec<_>>());
    }
}
