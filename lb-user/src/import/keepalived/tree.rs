//! Takes keepalived's files apart: statements of words, and the blocks that they open.
//!
//! A statement ends with its line, or with a brace. `!` and `#` begin comments, `"` quotes, and a
//! backslash takes the next character as it is.

use crate::import::finding::Findings;

/// A statement with at least one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    /// What stands between its braces.
    pub(super) block: Vec<Self>,
}

impl Node {
    /// The word at `at`, or nothing.
    pub(super) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// All words but the first.
    pub(super) fn rest(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// No block of keepalived's stands deeper.
const DEPTH: usize = 12;

enum Token {
    Word(String),
    Open,
    Close,
}

/// The statements of `text`.
pub(super) fn read(text: &str, findings: &mut Findings) -> Vec<Node> {
    // The statements of each block that is open, the file's own first.
    let mut open: Vec<Vec<Node>> = vec![Vec::new()];
    // Blocks that are too deep, or that nothing opens.
    let mut excess = 0_usize;
    for (line, text) in (1..).zip(text.lines()) {
        let tokens = tokens(text);
        if let Some(Token::Word(word)) = tokens.first()
            && let Some(why) = refusal(word)
        {
            let instead =
                "write out what holds on this host, and name all files on the command line";
            // What a variable stands for may be a secret.
            let what = word.split('=').next().unwrap_or_default();
            findings.lost(line, what, why, instead);
            continue;
        }
        let mut words = Vec::new();
        for token in tokens {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    end(line, &mut words, &mut open);
                    let is_opened = open.last().is_some_and(|nodes| !nodes.is_empty());
                    if excess > 0 || open.len() > DEPTH || !is_opened {
                        findings.lost(line, "{", "nothing opens a block here", "");
                        excess += 1;
                    } else {
                        open.push(Vec::new());
                    }
                }
                Token::Close => {
                    end(line, &mut words, &mut open);
                    if excess > 0 {
                        excess -= 1;
                    } else if !close(&mut open) {
                        findings.lost(line, "}", "no block is open", "");
                    }
                }
            }
        }
        end(line, &mut words, &mut open);
    }
    if open.len() > 1 || excess > 0 {
        let lines = text.lines().count();
        findings.lost(
            lines,
            "}",
            "a block is not closed",
            "see that the file is whole",
        );
        while close(&mut open) {}
    }
    open.pop().unwrap_or_default()
}

/// Ends a statement, if there is one.
fn end(line: usize, words: &mut Vec<String>, open: &mut [Vec<Node>]) {
    if words.is_empty() {
        return;
    }
    if let Some(nodes) = open.last_mut() {
        nodes.push(Node {
            line,
            words: std::mem::take(words),
            block: Vec::new(),
        });
    }
}

/// Puts the innermost block where it belongs; the file's own is none.
fn close(open: &mut Vec<Vec<Node>>) -> bool {
    if open.len() < 2 {
        return false;
    }
    let block = open.pop().unwrap_or_default();
    let opener = open.last_mut().and_then(|nodes| nodes.last_mut());
    if let Some(opener) = opener {
        opener.block.extend(block);
    }
    true
}

/// Why a line that begins with `word` is not decided here.
fn refusal(word: &str) -> Option<&'static str> {
    match word.chars().next()? {
        '@' => Some("it holds on some hosts alone"),
        '$' | '~' => Some("what variables stand for is not known here"),
        _ if word.starts_with("include") => Some("other files are not read by this one's word"),
        _ => None,
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let single = match c {
            '\\' => {
                word.get_or_insert_default().extend(characters.next());
                continue;
            }
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
                continue;
            }
            c if is_quoted => {
                word.get_or_insert_default().push(c);
                continue;
            }
            '!' | '#' => break,
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            c if c.is_whitespace() => None,
            c => {
                word.get_or_insert_default().push(c);
                continue;
            }
        };
        tokens.extend(word.take().map(Token::Word));
        tokens.extend(single);
    }
    tokens.extend(word.map(Token::Word));
    tokens
}

#[cfg(test)]
mod tests {
    use super::{Node, read};
    use crate::import::finding::Findings;

    fn tree(text: &str) -> (Vec<Node>, usize) {
        let mut findings = Findings::default();
        let nodes = read(text, &mut findings);
        (nodes, findings.into_sorted().len())
    }

    #[test]
    fn braces_may_stand_anywhere() {
        let text =
            "vrrp_instance a\n{\n  state BACKUP ! now\n  virtual_ipaddress { 10.0.0.1 }\n}\n";
        let (nodes, findings) = tree(text);
        assert_eq!(findings, 0);
        assert_eq!(nodes[0].words, ["vrrp_instance", "a"]);
        assert_eq!(nodes[0].block[0].words, ["state", "BACKUP"]);
        assert_eq!(nodes[0].block[1].block[0].word(0), "10.0.0.1");
        assert_eq!(nodes[0].block[1].line, 4);
    }

    #[test]
    fn quotes_keep_words_together() {
        let (nodes, _) = tree("script \"/bin/a {x} # y\" 7\n");
        assert_eq!(nodes[0].words, ["script", "/bin/a {x} # y", "7"]);
    }

    #[test]
    fn what_is_not_whole_is_told() {
        for text in ["a {", "}", "{ a }", "@main a 1", "$A=1", "include /etc/a"] {
            assert_eq!(tree(text).1, 1, "{text}");
        }
        let deep = "a {".repeat(1_000);
        assert!(tree(&deep).1 > 0);
    }
}
