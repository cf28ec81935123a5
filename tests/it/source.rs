//! The crate's own source as flat tokens, for the tests that hold its rules.
//!
//! Tokens come from `proc_macro2`, the lexer that procedural macros see: comments and the insides of
//! strings are gone, the bodies of macros are there. Each token knows where it stands: inside which
//! inline modules, in a function body, in an attribute, in code that only tests compile.

use proc_macro2::{Delimiter, Punct, Spacing, TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a [`Token`] is, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ident,
    /// `::` is one of these; any other punctuation is one character.
    Punct,
    Open,
    Close,
    Literal,
}

/// Where a token stands.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The inline modules around it (`mod tests { … }`), outermost first, without the file's own.
    pub modules: Rc<[String]>,
    pub in_function: bool,
    pub in_attribute: bool,
    /// Under `#[cfg(test)]`, in this file.
    pub in_test: bool,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    pub line: usize,
    pub place: Place,
}

/// One source file.
#[derive(Debug)]
pub struct File {
    /// Relative to `src/`, with `/` between its parts.
    pub path: String,
    pub lines: usize,
    pub tokens: Vec<Token>,
    /// Names of the modules that this file declares in files of their own (`mod x;`).
    pub declared: Vec<Declared>,
}

/// A `mod name;`.
#[derive(Debug)]
pub struct Declared {
    pub name: String,
    pub line: usize,
    pub in_test: bool,
}

impl File {
    /// Reads `text` as the file `src/{path}`.
    pub fn parse(path: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("src/{path} is not Rust: {error}"));
        let mut walk = Walk { tokens: Vec::new(), declared: Vec::new() };
        walk.stream(stream, &Place::default());
        Self { path: path.to_owned(), lines: text.lines().count(), tokens: walk.tokens, declared: walk.declared }
    }

    /// The module that the file is: `["error", "format"]` for `error/format.rs`, `[]` for `lib.rs`.
    pub fn module(&self) -> Vec<String> {
        let mut parts: Vec<String> = self.path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            parts.pop();
        }
        parts
    }

    /// Whether the file belongs to the program, and not to the library.
    pub fn is_program(&self) -> bool {
        self.path.starts_with("bin/")
    }

    /// The token `by` places after (or, if negative, before) the one at `at`.
    pub fn near(&self, at: usize, by: isize) -> Option<&Token> {
        self.tokens.get(at.checked_add_signed(by)?)
    }

    /// Whether the token `by` places from `at` reads `text`.
    pub fn near_is(&self, at: usize, by: isize, text: &str) -> bool {
        self.near(at, by).is_some_and(|token| token.kind != Kind::Literal && token.text == text)
    }
}

/// Every file under `src/`, in order of path.
pub fn tree() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no source under {}", root.display());
    let relative = |path: &Path| {
        let parts: Vec<_> = path.strip_prefix(&root).unwrap().iter().map(|part| part.to_str().unwrap()).collect();
        parts.join("/")
    };
    paths.iter().map(|path| File::parse(&relative(path), &fs::read_to_string(path).unwrap())).collect()
}

/// The modules, among `files`, that only tests compile: `#[cfg(test)] mod tests;` and what lies below.
pub fn test_modules(files: &[File]) -> Vec<Vec<String>> {
    let declared = files.iter().flat_map(|file| {
        file.declared.iter().filter(|declared| declared.in_test).map(|declared| {
            let mut module = file.module();
            module.push(declared.name.clone());
            module
        })
    });
    declared.collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

struct Walk {
    tokens: Vec<Token>,
    declared: Vec<Declared>,
}

impl Walk {
    fn stream(&mut self, stream: TokenStream, place: &Place) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let mut place = place.clone();
        // What the items seen so far say about the next braces: forgotten at `;` and after them.
        let (mut module, mut function, mut test) = (None, false, false);
        let mut at = 0;
        while let Some(tree) = trees.get(at) {
            at += 1;
            match tree {
                TokenTree::Group(group) => {
                    let attribute = group.delimiter() == Delimiter::Bracket && self.after_hash();
                    let mut inside = place.clone();
                    inside.in_attribute |= attribute;
                    if attribute && is_cfg_test(group.stream()) {
                        let inner = self.tokens.last().is_some_and(|token| token.text == "!");
                        place.in_test |= inner;
                        test |= !inner;
                    }
                    if group.delimiter() == Delimiter::Brace {
                        inside.in_test |= std::mem::take(&mut test);
                        inside.in_function |= std::mem::take(&mut function);
                        if let Some(name) = module.take() {
                            inside.modules = place.modules.iter().cloned().chain([name]).collect();
                        }
                    }
                    self.group(group, &inside);
                }
                TokenTree::Ident(ident) => {
                    let text = ident.to_string();
                    let next = trees.get(at);
                    match (text.as_str(), next) {
                        ("mod", Some(TokenTree::Ident(name))) => module = Some(name.to_string()),
                        ("fn", Some(TokenTree::Ident(_))) => function = true,
                        ("fn", Some(TokenTree::Punct(punct))) if punct.as_char() == '$' => function = true,
                        _ => {}
                    }
                    self.push(Kind::Ident, text, ident.span(), &place);
                }
                TokenTree::Punct(punct) if is_colon(tree) && trees.get(at).is_some_and(is_colon) && joins(punct) => {
                    at += 1;
                    self.push(Kind::Punct, "::".to_owned(), punct.span(), &place);
                }
                TokenTree::Punct(punct) => {
                    if punct.as_char() == ';' {
                        if let Some(name) = module.take() {
                            let line = punct.span().start().line;
                            self.declared.push(Declared { name, line, in_test: place.in_test || test });
                        }
                        (function, test) = (false, false);
                    }
                    self.push(Kind::Punct, punct.as_char().to_string(), punct.span(), &place);
                }
                TokenTree::Literal(literal) => {
                    self.push(Kind::Literal, literal.to_string(), literal.span(), &place);
                }
            }
        }
    }

    fn group(&mut self, group: &proc_macro2::Group, place: &Place) {
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => return self.stream(group.stream(), place),
        };
        self.push(Kind::Open, open.to_owned(), group.span_open(), place);
        self.stream(group.stream(), place);
        self.push(Kind::Close, close.to_owned(), group.span_close(), place);
    }

    fn push(&mut self, kind: Kind, text: String, span: proc_macro2::Span, place: &Place) {
        self.tokens.push(Token { kind, text, line: span.start().line, place: place.clone() });
    }

    /// Whether the last tokens are `#` or `#!`.
    fn after_hash(&self) -> bool {
        let mut last = self.tokens.iter().rev().map(|token| token.text.as_str());
        match last.next() {
            Some("#") => true,
            Some("!") => last.next() == Some("#"),
            _ => false,
        }
    }
}

fn is_colon(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == ':')
}

fn joins(punct: &Punct) -> bool {
    punct.spacing() == Spacing::Joint
}

/// `cfg(test)` or `cfg(all(test, …))`: with `any` or `not`, the code also stands outside tests.
fn is_cfg_test(attribute: TokenStream) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

#[test]
fn tokens_know_the_module_function_and_test_that_they_stand_in() {
    let file = File::parse(
        "io/read.rs",
        "//! crate::no\nfn f() { alpha } /* crate::no */ #[cfg(test)] mod tests { const S: &str = \"crate::no\"; beta!{} }\n\
         #[cfg(test)] mod vectors; mod plain; #[cfg(any(test, feature = \"x\"))] mod both { gamma }",
    );
    let place = |name: &str| file.tokens.iter().find(|token| token.text == name).unwrap().place.clone();
    assert!(file.tokens.iter().all(|token| token.text != "crate"));
    assert!(place("alpha").in_function && !place("alpha").in_test);
    assert!(place("beta").in_test && !place("beta").in_function);
    assert_eq!(place("beta").modules.to_vec(), ["tests"]);
    assert!(!place("gamma").in_test);
    assert_eq!(place("gamma").modules.to_vec(), ["both"]);
    assert!(place("cfg").in_attribute);
    let declared: Vec<_> = file.declared.iter().map(|declared| (declared.name.as_str(), declared.in_test)).collect();
    assert_eq!(declared, [("vectors", true), ("plain", false)]);
    assert_eq!(test_modules(&[file]), [["io", "read", "vectors"]]);
}
