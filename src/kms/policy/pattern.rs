//! Text with wildcards, and the policy variables that stand for themselves.

use super::{malformed, shown};
use crate::error::Result;

/// Which rules a policy is written by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// `2008-10-17`, also where there is none: `${` is text.
    V2008,
    /// `2012-10-17`: `${…}` is a policy variable.
    V2012,
}

/// Text in which `*` stands for any characters, none included, and `?` for exactly one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Char(char),
    One,
    Any,
}

impl Pattern {
    pub(super) fn parse(text: &str, version: Version) -> Result<Self> {
        tokens(text, version).map(Self)
    }

    /// Whether all of `value` matches, by case. Takes at most as many steps as the product of both lengths, so
    /// what a policy of 32 KiB makes of a context of 8 KiB is bounded.
    pub(super) fn matches(&self, value: &str) -> bool {
        let mut rest = value.chars();
        let mut at = 0;
        // Where the last `*` ended, and what of the value it has not taken yet.
        let mut retry = None;
        loop {
            let here = rest.clone();
            match (self.0.get(at), rest.next()) {
                (Some(Token::Any), _) => {
                    at += 1;
                    if at == self.0.len() {
                        return true;
                    }
                    retry = Some((at, here.clone()));
                    rest = here;
                }
                (Some(Token::One), Some(_)) => at += 1,
                (Some(Token::Char(wanted)), Some(found)) if *wanted == found => at += 1,
                (None, None) => return true,
                (Some(_), None) => return false,
                _ => match &mut retry {
                    Some((after, untaken)) => {
                        untaken.next();
                        at = *after;
                        rest = untaken.clone();
                    }
                    None => return false,
                },
            }
        }
    }

    /// The characters before the first wildcard.
    pub(super) fn literal_prefix(&self) -> String {
        self.0
            .iter()
            .map_while(|token| match token {
                Token::Char(character) => Some(*character),
                Token::One | Token::Any => None,
            })
            .collect()
    }

    pub(super) fn has_wildcards(&self) -> bool {
        self.0.iter().any(|token| !matches!(token, Token::Char(_)))
    }
}

/// Text for an operator that knows no wildcards.
pub(super) fn literal(text: &str, version: Version) -> Result<String> {
    let characters = tokens(text, version)?.into_iter().map(|token| match token {
        Token::Char(character) => character,
        Token::One => '?',
        Token::Any => '*',
    });
    Ok(characters.collect())
}

/// `${*}`, `${?}` and `${$}` stand for these characters (IAM User Guide, "Policy variables"). No other variable is
/// known, and one that was taken as text would make a Deny statement that never applies.
fn tokens(text: &str, version: Version) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if version == Version::V2012 && rest.starts_with("${") {
            let escaped =
                ['*', '?', '$'].into_iter().find(|it| rest[2..].starts_with(*it) && rest[3..].starts_with('}'));
            let Some(escaped) = escaped else {
                return Err(malformed(format!(
                    "the policy variable in {} is not supported: there are `${{*}}`, `${{?}}` and `${{$}}`, and `${{$}}{{` \
                     is the text `${{`",
                    shown(text)
                )));
            };
            tokens.push(Token::Char(escaped));
            rest = &rest[4..];
            continue;
        }
        tokens.push(match character {
            '*' => Token::Any,
            '?' => Token::One,
            other => Token::Char(other),
        });
        rest = &rest[character.len_utf8()..];
    }
    Ok(tokens)
}
