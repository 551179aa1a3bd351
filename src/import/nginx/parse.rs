//! nginx's syntax: directives, blocks, and the files they come from.

use super::files::Files;
use super::lex::{LexError, Lexer, Token};

/// A directive with what stands in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its number among all.
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) args: Vec<String>,
    /// `None` where `;` ends it.
    pub(super) block: Option<Vec<Directive>>,
    pub(super) file: u32,
    pub(super) line: u32,
}

impl Directive {
    pub(super) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    pub(super) fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// As it was written, on one line and without its block.
    pub(super) fn text(&self) -> String {
        let mut text = self.name.clone();
        for arg in &self.args {
            text.push(' ');
            if arg.is_empty() || arg.contains([' ', ';', '\n', '\t']) {
                text.push_str(&format!("'{}'", arg.replace(['\n', '\t', '\r'], " ")));
            } else {
                text.push_str(arg);
            }
        }
        text
    }
}

/// Why a configuration cannot be read. Displays as `file:line: what`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {message}", if *line == 0 { String::new() } else { format!(":{line}") })]
pub struct ParseError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Deepest nesting of blocks; nginx' own contexts go six deep.
const DEPTH_MAX: usize = 32;
/// Most directives, over all files.
const DIRECTIVES_MAX: u32 = 200_000;
/// Most words of one directive.
const ARGS_MAX: usize = 4096;
/// Deepest nesting of includes.
const INCLUDE_DEPTH_MAX: usize = 16;

/// Reads the main file with all it includes.
pub(super) fn parse(files: &mut Files) -> Result<Vec<Directive>, ParseError> {
    let mut parser = Parser { files, next_id: 0 };
    parser.file(0, 0, 0)
}

struct Parser<'f> {
    files: &'f mut Files,
    next_id: u32,
}

/// Where a parser is.
struct At<'t> {
    file: u32,
    lexer: Lexer<'t>,
    include_depth: usize,
}

impl Parser<'_> {
    /// A whole file, found in a block `depth` deep.
    fn file(&mut self, file: u32, depth: usize, include_depth: usize) -> Result<Vec<Directive>, ParseError> {
        let text = self.files.text(file);
        if let Some(at) = text.find('\0') {
            let before = text.get(..at).unwrap_or_default();
            let line = u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX);
            return Err(self.error(file, line, "a NUL stands here: this is no configuration"));
        }
        let mut at = At { file, lexer: Lexer::new(&text), include_depth };
        self.block(&mut at, depth, None)
    }

    /// Directives up to the `}` of the block that `opened` in some line, or the end of the file.
    fn block(
        &mut self,
        at: &mut At<'_>,
        depth: usize,
        opened: Option<u32>,
    ) -> Result<Vec<Directive>, ParseError> {
        if depth > DEPTH_MAX {
            let line = at.lexer.line();
            return Err(self.error(at.file, line, format!("blocks are nested more than {DEPTH_MAX} deep")));
        }
        let mut directives = Vec::new();
        loop {
            match self.token(at)? {
                None => match opened {
                    None => return Ok(directives),
                    Some(line) => {
                        return Err(self.error(
                            at.file,
                            line,
                            "the block that begins here is not closed: \"}\" is missing",
                        ));
                    }
                },
                Some((Token::Close, _)) if opened.is_some() => return Ok(directives),
                Some((Token::Close, line)) => return Err(self.error(at.file, line, "unexpected \"}\"")),
                Some((Token::End, line)) => return Err(self.error(at.file, line, "unexpected \";\"")),
                Some((Token::Open, line)) => return Err(self.error(at.file, line, "unexpected \"{\"")),
                Some((Token::Word(name), line)) => {
                    let directive = self.directive(at, name, line, depth)?;
                    let included = directive.name == "include" && directive.block.is_none();
                    directives.push(directive);
                    if included && let Some(include) = directives.last().cloned() {
                        directives.extend(self.include(&include, depth, at.include_depth)?);
                    }
                }
            }
        }
    }

    fn directive(
        &mut self,
        at: &mut At<'_>,
        name: String,
        line: u32,
        depth: usize,
    ) -> Result<Directive, ParseError> {
        let id = self.next_id;
        self.next_id += 1;
        if id >= DIRECTIVES_MAX {
            return Err(self.error(
                at.file,
                line,
                format!("there are more than {DIRECTIVES_MAX} directives"),
            ));
        }
        let mut args = Vec::new();
        let block = loop {
            match self.token(at)? {
                Some((Token::Word(word), _)) if args.len() < ARGS_MAX => args.push(word),
                Some((Token::Word(_), line)) => {
                    return Err(self.error(
                        at.file,
                        line,
                        format!("a directive has more than {ARGS_MAX} words"),
                    ));
                }
                Some((Token::End, _)) => break None,
                Some((Token::Open, _)) if name.ends_with("_by_lua_block") => {
                    at.lexer.skip_code().map_err(|error| self.lex_error(at.file, error))?;
                    break Some(Vec::new());
                }
                Some((Token::Open, opened)) => break Some(self.block(at, depth + 1, Some(opened))?),
                Some((Token::Close, line)) => {
                    return Err(self.error(
                        at.file,
                        line,
                        format!("unexpected \"}}\": \"{name}\" is not ended by \";\""),
                    ));
                }
                None => {
                    return Err(self.error(
                        at.file,
                        line,
                        format!("\"{name}\" is not ended by \";\" or a block"),
                    ));
                }
            }
        };
        Ok(Directive { id, name, args, block, file: at.file, line })
    }

    /// What `include` stands for.
    fn include(
        &mut self,
        include: &Directive,
        depth: usize,
        include_depth: usize,
    ) -> Result<Vec<Directive>, ParseError> {
        let fail = |parser: &Self, message: String| parser.error(include.file, include.line, message);
        let [pattern] = include.args.as_slice() else {
            return Err(fail(self, "\"include\" takes one file or pattern".to_owned()));
        };
        if include_depth >= INCLUDE_DEPTH_MAX {
            return Err(fail(self, format!("includes are nested more than {INCLUDE_DEPTH_MAX} deep")));
        }
        let found = self.files.include(pattern).map_err(|message| fail(self, message))?;
        let mut directives = Vec::new();
        for file in found {
            directives.extend(self.file(file, depth, include_depth + 1)?);
        }
        Ok(directives)
    }

    fn token(&self, at: &mut At<'_>) -> Result<Option<(Token, u32)>, ParseError> {
        at.lexer.next().map_err(|error| self.lex_error(at.file, error))
    }

    fn lex_error(&self, file: u32, error: LexError) -> ParseError {
        self.error(file, error.line, error.message)
    }

    fn error(&self, file: u32, line: u32, message: impl Into<String>) -> ParseError {
        ParseError { file: self.files.name(file).to_owned(), line, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<Directive>, String> {
        parse(&mut Files::of_text("nginx.conf", text)).map_err(|error| error.to_string())
    }

    #[test]
    fn blocks_hold_directives_with_their_lines() {
        let all = read("user www;\nhttp {\n  server {\n listen 80 default_server;\n }\n}\n").unwrap();
        assert_eq!(all.len(), 2);
        let listen = &all[1].inner()[0].inner()[0];
        assert_eq!((listen.text().as_str(), listen.line, listen.id), ("listen 80 default_server", 4, 3));
    }

    #[test]
    fn mistakes_have_a_file_and_a_line() {
        for (text, message) in [
            ("a;\nb", "nginx.conf:2: \"b\" is not ended by \";\" or a block"),
            ("http {\n a;\n", "nginx.conf:1: the block that begins here is not closed: \"}\" is missing"),
            ("a }", "nginx.conf:1: unexpected \"}\": \"a\" is not ended by \";\""),
            ("\n}", "nginx.conf:2: unexpected \"}\""),
            (";", "nginx.conf:1: unexpected \";\""),
            ("a \"b", "nginx.conf:1: \" is not closed"),
            ("a;\nb\0;", "nginx.conf:2: a NUL stands here: this is no configuration"),
            ("include a b;", "nginx.conf:1: \"include\" takes one file or pattern"),
        ] {
            assert_eq!(read(text).unwrap_err(), message, "{text}");
        }
        assert!(read(&"a{".repeat(100)).unwrap_err().contains("more than 32 deep"));
        assert!(read(&format!("a {};", "b ".repeat(5000))).unwrap_err().contains("more than 4096 words"));
    }

    #[test]
    fn lua_is_not_read_as_directives() {
        let all = read("a { access_by_lua_block { if x then return {1} end } b; }").unwrap();
        assert_eq!(all[0].inner().len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([a-z]{1,4}|[ \\n;{}#\"'\\\\$(){}~*]|include |äö){0,64}") {
            drop(read(&text));
        }

        #[test]
        fn no_bytes_panic(text in any::<String>()) {
            drop(read(&text));
        }

        /// Whatever is written between quotes comes out as it was.
        #[test]
        fn quoted_words_survive(word in "[^\\\\\0]{0,20}") {
            let quoted = word.replace('"', "\\\"");
            let all = read(&format!("a \"{quoted}\";")).unwrap();
            prop_assert_eq!(all[0].arg(0), word);
        }
    }
}
