//! Scripts into blocks, and commands into words.

use std::collections::VecDeque;

use super::ScriptError;

/// A command with what stands around it.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Line of the command.
    pub(super) line: usize,
    /// Comments and blank lines before the command.
    pub(super) comments: Vec<String>,
    /// The command; `None` when only comments are left.
    pub(super) command: Option<String>,
    /// Its trace as the script says, without indentation.
    pub(super) expected: Vec<String>,
}

/// Splits a script. A trace ends with the first line that is not indented; blank lines before a comment are kept.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, ScriptError> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut comments = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line_number = number + 1;
        let indented = line.starts_with([' ', '\t']) && !line.trim().is_empty();
        let line = line.trim_end();
        match blocks.last_mut() {
            Some(block) if indented && comments.is_empty() => {
                block.expected.push(line.trim_start().to_owned())
            }
            _ if indented => {
                let message = "a trace line must follow its command; commands are not indented".to_owned();
                return Err(ScriptError::Syntax { line: line_number, message });
            }
            // The blank line after a trace is written anew.
            _ if line.is_empty() => {
                if !comments.is_empty() {
                    comments.push(String::new());
                }
            }
            _ if line.starts_with('#') => comments.push(line.to_owned()),
            _ => {
                let comments = std::mem::take(&mut comments);
                let command = Some(line.to_owned());
                blocks.push(Block { line: line_number, comments, command, expected: Vec::new() });
            }
        }
    }
    if !comments.is_empty() {
        blocks.push(Block { comments, ..Block::default() });
    }
    Ok(blocks)
}

/// Words of a command, without what follows a `#` that stands alone.
pub(super) fn words(command: &str) -> VecDeque<&str> {
    command.split_whitespace().take_while(|w| !w.starts_with('#')).collect()
}

/// A payload as written: text, or `TEXT*N` for N repetitions.
pub(super) fn payload(word: &str) -> Vec<u8> {
    match word.rsplit_once('*').and_then(|(text, n)| Some((text, n.parse::<usize>().ok()?))) {
        Some((text, times)) => text.repeat(times).into_bytes(),
        None => word.as_bytes().to_vec(),
    }
}

/// Both lists line by line (longest common subsequence): kept with a blank, missing with `-`, new with `+`.
pub(super) fn diff(expected: &[String], actual: &[String]) -> String {
    let (n, m) = (expected.len(), actual.len());
    let mut common = vec![vec![0_usize; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            common[i][j] = if expected[i] == actual[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < n || j < m {
        if i < n && j < m && expected[i] == actual[j] {
            lines.push(format!("    {}", expected[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < n && (j == m || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("  - {}", expected[i]));
            i += 1;
        } else {
            lines.push(format!("  + {}", actual[j]));
            j += 1;
        }
    }
    lines.join("\n")
}
