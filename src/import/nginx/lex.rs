//! Words of nginx's configuration, read as nginx reads them: quotes, escapes, comments, `${name}`.

/// A word, or what stands between words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word, with its escapes resolved.
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Why a text has no words, at a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LexError {
    pub(super) line: u32,
    pub(super) message: String,
}

/// Reads words one by one.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    rest: &'t str,
    /// The line that `rest` begins in, from 1.
    line: u32,
    /// A quoted word ended here: nothing but a space, `;`, `{` or `)` may follow.
    after_quote: bool,
}

/// Longest word: nginx' own bound is its buffer of 4 KiB, but a log format may be put together from several.
const WORD_BYTES_MAX: usize = 64 * 1024;

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1, after_quote: false }
    }

    /// The line of the last token.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    fn error(&self, message: impl Into<String>) -> LexError {
        LexError { line: self.line, message: message.into() }
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = self.rest.get(next.len_utf8()..).unwrap_or_default();
        if next == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(next)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// The next token with the line it begins in; `None` at the end of the text.
    pub(super) fn next(&mut self) -> Result<Option<(Token, u32)>, LexError> {
        loop {
            let Some(next) = self.peek() else { return Ok(None) };
            let space = matches!(next, ' ' | '\t' | '\r' | '\n');
            if std::mem::take(&mut self.after_quote) && !space && !matches!(next, ';' | '{' | ')') {
                return Err(self.error(format!("unexpected \"{next}\" after a quoted word")));
            }
            let line = self.line;
            let token = match next {
                _ if space => {
                    self.bump();
                    continue;
                }
                '#' => {
                    while self.peek().is_some_and(|next| next != '\n') {
                        self.bump();
                    }
                    continue;
                }
                ';' => Token::End,
                '{' => Token::Open,
                '}' => Token::Close,
                '"' | '\'' => {
                    self.bump();
                    return self.quoted(next, line).map(Some);
                }
                _ => return self.plain(line).map(Some),
            };
            self.bump();
            return Ok(Some((token, line)));
        }
    }

    fn quoted(&mut self, quote: char, line: u32) -> Result<(Token, u32), LexError> {
        let mut word = String::new();
        loop {
            match self.bump() {
                None => return Err(LexError { line, message: format!("{quote} is not closed") }),
                Some('\\') => self.escape(&mut word),
                Some(next) if next == quote => {
                    self.after_quote = true;
                    return Ok((Token::Word(word), line));
                }
                Some(next) => word.push(next),
            }
            self.check_length(&word)?;
        }
    }

    fn plain(&mut self, line: u32) -> Result<(Token, u32), LexError> {
        let mut word = String::new();
        let mut after_dollar = false;
        while let Some(next) = self.peek() {
            let variable = std::mem::replace(&mut after_dollar, next == '$');
            match next {
                ' ' | '\t' | '\r' | '\n' | ';' => break,
                '{' if !variable => break,
                '\\' => {
                    self.bump();
                    self.escape(&mut word);
                }
                _ => {
                    self.bump();
                    word.push(next);
                }
            }
            self.check_length(&word)?;
        }
        Ok((Token::Word(word), line))
    }

    /// After a backslash: nginx resolves quotes, backslashes and the three usual control characters, nothing else.
    fn escape(&mut self, word: &mut String) {
        match self.bump() {
            Some(next @ ('"' | '\'' | '\\')) => word.push(next),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(other) => word.extend(['\\', other]),
            None => word.push('\\'),
        }
    }

    fn check_length(&self, word: &str) -> Result<(), LexError> {
        if word.len() > WORD_BYTES_MAX {
            return Err(self.error(format!("a word is longer than {WORD_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// Skips code of another language up to the `}` that closes it: what `*_by_lua_block` holds.
    pub(super) fn skip_code(&mut self) -> Result<(), LexError> {
        let (start, mut depth) = (self.line, 1_u32);
        while depth > 0 {
            match self.bump() {
                Some('{') => depth += 1,
                Some('}') => depth -= 1,
                Some(quote @ ('"' | '\'')) => {
                    while let Some(next) = self.bump().filter(|next| *next != quote && *next != '\n') {
                        if next == '\\' {
                            self.bump();
                        }
                    }
                }
                Some('-') if self.rest.starts_with('-') => {
                    while self.peek().is_some_and(|next| next != '\n') {
                        self.bump();
                    }
                }
                Some(_) => {}
                None => {
                    return Err(LexError {
                        line: start,
                        message: "a block of code is not closed".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<String>, String> {
        let mut lexer = Lexer::new(text);
        let mut all = Vec::new();
        loop {
            match lexer.next() {
                Ok(None) => return Ok(all),
                Ok(Some((token, line))) => all.push(match token {
                    Token::Word(word) => format!("{line}:{word}"),
                    other => format!("{other:?}"),
                }),
                Err(error) => return Err(format!("{}: {}", error.line, error.message)),
            }
        }
    }

    #[test]
    fn words_are_read_as_nginx_reads_them() {
        for (text, expected) in [
            ("a b;", &["1:a", "1:b", "End"][..]),
            ("a\n  'b c' \"d;e\" ;", &["1:a", "2:b c", "2:d;e", "End"]),
            ("a # b;\nc{}", &["1:a", "2:c", "Open", "Close"]),
            ("a#b;", &["1:a#b", "End"]),
            (r#"a \"b \t\d "\"\'\\\." ;"#, &["1:a", "1:\"b", "1:\t\\d", "1:\"'\\\\.", "End"]),
            ("a ${b}c{", &["1:a", "1:${b}c", "Open"]),
            ("a b}c;", &["1:a", "1:b}c", "End"]),
            ("if ($a = \"b\") {", &["1:if", "1:($a", "1:=", "1:b", "1:)", "Open"]),
            ("~\\.php$ {", &["1:~\\.php$", "Open"]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn broken_words_are_told_with_their_line() {
        assert_eq!(words("a\n\"b").unwrap_err(), "2: \" is not closed");
        assert_eq!(words("\"a\"b").unwrap_err(), "1: unexpected \"b\" after a quoted word");
    }

    #[test]
    fn code_is_skipped() {
        let mut lexer = Lexer::new("local a = {'}'} -- }\n return \"\\\"}\" } next");
        lexer.skip_code().unwrap();
        assert_eq!(lexer.next().unwrap(), Some((Token::Word("next".to_owned()), 2)));
    }
}
