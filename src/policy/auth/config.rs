//! What a route writes under `auth`, and what becomes of it.

use std::sync::Arc;

use indexmap::IndexMap;

use super::{Auth, Kind, Places, Requirements};
use crate::base::decode::{Decoder, Node, Setting, Shape, Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::{At, Origin};
use crate::identity::directory::Directory;
use crate::identity::provider::{Provider, Providers};
use crate::keys;
use crate::routing::Expression;
use crate::routing::config::Written;
use crate::routing::expression::Stage;
use crate::routing::template::Scope;

keys! {
    /// Who may use a route, and how that is proved. The first kind that a request shows decides; a bad one is 401.
    pub struct AuthTable {
        /// Kinds of proof: `"jwt:PROVIDER"`, `"api_key"`, `"mtls"`; `"none"` at the end = who shows nothing passes, too.
        with: required Vec<At<Method>>,
        /// Roles that must be held, all of them: of the token, and groups of the consumer.
        roles: Vec<At<String>> = Vec::new(),
        /// Roles of which one must be held.
        any_role: Vec<At<String>> = Vec::new(),
        /// Scopes that the token must have, all of them.
        scopes: Vec<At<String>> = Vec::new(),
        /// The plan of consumers that name none, and of whoever else passes.
        plan: optional String,
        /// A CEL expression that must hold, over `jwt consumer path query header cookie client request`; one that fails denies.
        when: optional Written,
    }
}

/// `auth` of a route.
#[derive(Debug, Clone)]
pub enum AuthRaw {
    /// `"none"`: everybody.
    None,
    /// Whoever proves it.
    Table(Box<AuthTable>),
}

/// One way to prove who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// A token of this provider.
    Jwt(Box<str>),
    /// An API key.
    ApiKey,
    /// A client certificate.
    Mtls,
    /// Not at all.
    None,
}

/// What a route may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// All providers that are written, by name.
    pub providers: &'a IndexMap<String, Arc<Provider>>,
    /// Who is known.
    pub directory: &'a Arc<Directory>,
    /// Where clients show who they are.
    pub places: &'a Arc<Places>,
    /// What `path` has.
    pub scope: Scope<'a>,
}

impl AuthRaw {
    /// The policy; `None` where there is none. `path` is the configuration path of the table.
    pub fn compile(&self, path: &str, known: Known<'_>, out: &mut Diagnostics) -> Option<Auth> {
        let Self::Table(table) = self else { return None };
        table.check_order(path, out);
        let providers = table.providers(path, known, out);
        let mut kinds: Vec<Kind> = Vec::new();
        for kind in table.with.iter().map(|method| method.kind()) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let requirements = Requirements {
            roles: texts(&table.roles, &format!("{path}.roles"), out),
            any_role: texts(&table.any_role, &format!("{path}.any_role"), out),
            scopes: table.scopes(path, out),
            when: table.when.as_ref().and_then(|when| {
                match Expression::parse(when.text(), known.scope, Stage::Authorization) {
                    Ok(expression) => Some(Box::new(expression)),
                    Err(mistake) => {
                        when.report(&when.origin, &format!("{path}.when"), mistake, out);
                        None
                    }
                }
            }),
        };
        table.check_possible(path, &kinds, out);
        Some(Auth {
            kinds: kinds.into(),
            providers: Providers::new(providers),
            directory: known.directory.clone(),
            places: known.places.clone(),
            requirements,
        })
    }

    /// Where it asks for a client certificate.
    pub fn wants_certificate(&self) -> Option<&At<Method>> {
        match self {
            Self::None => None,
            Self::Table(table) => table.with.iter().find(|method| method.value == Method::Mtls),
        }
    }

    /// Whether everybody passes who shows nothing.
    pub fn lets_anybody_in(&self) -> bool {
        match self {
            Self::None => true,
            Self::Table(table) => table.with.iter().any(|method| method.value == Method::None),
        }
    }
}

impl AuthTable {
    /// Every way once, `"none"` last.
    fn check_order(&self, path: &str, out: &mut Diagnostics) {
        for (index, method) in self.with.iter().enumerate() {
            let path = format!("{path}.with[{index}]");
            if let Some(first) = self.with.iter().take(index).find(|earlier| earlier.value == method.value) {
                let message = format!("{} stands here twice", method.render());
                out.error("invalid-value", &method.origin, path, message)
                    .related(&first.origin, "first written here");
            } else if method.value == Method::None && index + 1 < self.with.len() {
                let message = "\"none\" stands at the end: it lets in who has nothing else to show";
                out.error("invalid-value", &method.origin, path, message);
            }
        }
    }

    fn providers(&self, path: &str, known: Known<'_>, out: &mut Diagnostics) -> Vec<Arc<Provider>> {
        let mut found = Vec::new();
        let mut origins = Vec::new();
        for (index, method) in self.with.iter().enumerate() {
            let Method::Jwt(name) = &method.value else { continue };
            match known.providers.get(&**name) {
                Some(provider) => {
                    found.push(provider.clone());
                    origins.push((index, &method.origin));
                }
                None => {
                    let message = format!("the provider {} is not defined", quote(name));
                    let near = nearest(name, known.providers.keys().map(String::as_str));
                    let problem =
                        out.error("undefined", &method.origin, format!("{path}.with[{index}]"), message);
                    match near {
                        Some(near) => problem.hint(format!("did you mean \"jwt:{near}\"?")),
                        None => problem.hint(format!("define it: [identity.providers.{name}]")),
                    };
                }
            }
        }
        if let Some((first, second)) = Providers::alike(&found)
            && let (Some((_, first)), Some((index, second))) = (origins.get(first), origins.get(second))
        {
            let message =
                "tokens of these two providers cannot be told apart: they have the same issuer, or none";
            out.error("ambiguous-providers", second, format!("{path}.with[{index}]"), message)
                .hint("give each an `issuer` of its own")
                .related(first, "the other one");
        }
        found
    }

    fn scopes(&self, path: &str, out: &mut Diagnostics) -> Box<[Box<str>]> {
        let path = format!("{path}.scopes");
        for (index, scope) in self.scopes.iter().enumerate() {
            // RFC 6749 section 3.3; they stand between quotes in a header.
            let token = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
            if scope.is_empty() || !scope.bytes().all(token) {
                let message = format!("{} is not a scope", quote(scope));
                out.error("invalid-value", &scope.origin, format!("{path}[{index}]"), message)
                    .hint("a scope has no spaces; several are several elements of the list");
            }
        }
        self.scopes.iter().map(|scope| scope.as_str().into()).collect()
    }

    /// What nobody could hold.
    fn check_possible(&self, path: &str, kinds: &[Kind], out: &mut Diagnostics) {
        let held = [
            ("roles", self.roles.first()),
            ("any_role", self.any_role.first()),
            ("scopes", self.scopes.first()),
        ];
        let held = held.into_iter().find_map(|(key, first)| Some((key, first?)));
        if let (Some((key, first)), Some(none)) =
            (held, self.with.iter().find(|method| method.value == Method::None))
        {
            let message = format!("\"none\" lets nobody in beside `{key}`: who shows nothing holds none");
            out.error("contradiction", &none.origin, format!("{path}.with"), message)
                .related(&first.origin, "asked for here");
        }
        if let Some(first) = self.scopes.first()
            && !kinds.contains(&Kind::Jwt)
        {
            let message = "only tokens have scopes, and none is taken here";
            out.error("contradiction", &first.origin, format!("{path}.scopes"), message)
                .hint("API keys and certificates have the groups of their consumer: `roles`");
        }
    }
}

fn texts(list: &[At<String>], path: &str, out: &mut Diagnostics) -> Box<[Box<str>]> {
    for (index, text) in list.iter().enumerate().filter(|(_, text)| text.trim().is_empty()) {
        out.error("invalid-value", &text.origin, format!("{path}[{index}]"), "a role has a name");
    }
    list.iter().map(|text| text.as_str().into()).collect()
}

impl Value for AuthRaw {
    fn shape() -> Shape {
        Shape::OneOf(vec![AuthTable::shape(), Shape::Word(&["none"])])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        use crate::base::decode::Kind;
        match &node.kind {
            Kind::Table(_) => {
                // Here, where what is broken still counts.
                if let Some(with) =
                    node.get("with").filter(|with| with.as_array().is_some_and(<[_]>::is_empty))
                {
                    cx.key_error("invalid-value", &with.origin, "with", "nobody could prove anything")
                        .hint("write auth = \"none\" to let everybody in");
                }
                AuthTable::decode(node, cx).map(Box::new).map(Self::Table)
            }
            Kind::String { text, .. } if text == "none" => Some(Self::None),
            Kind::String { .. } | Kind::Boolean(false) => {
                let hint = "\"none\" lets everybody in; ways to prove who one is stand in `with`".to_owned();
                cx.expected_or(node, "a table or \"none\"", Some(hint))
            }
            _ => cx.expected(node, "a table such as { with = [\"jwt:local\"] }, or \"none\""),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::None => quote("none"),
            Self::Table(table) => table.render(),
        }
    }

    fn settings(&self, key: &str, origin: &Origin, out: &mut Vec<Setting>) {
        match self {
            Self::None => {
                let (key, origin) = (key.to_owned(), origin.clone());
                out.push(Setting { key, value: self.render(), origin, needs_upgrade: false });
            }
            Self::Table(table) => table.settings(key, origin, out),
        }
    }
}

impl Method {
    fn kind(&self) -> Kind {
        match self {
            Self::Jwt(_) => Kind::Jwt,
            Self::ApiKey => Kind::ApiKey,
            Self::Mtls => Kind::Mtls,
            Self::None => Kind::None,
        }
    }
}

/// Ways that have no name of a provider in them.
const WORDS: [&str; 3] = ["api_key", "mtls", "none"];

impl Value for Method {
    fn shape() -> Shape {
        let token = Shape::Text { pattern: Some("^jwt:.+$"), examples: &["jwt:local"] };
        Shape::OneOf(vec![token, Shape::Word(&WORDS)])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else {
            return cx.expected(node, "\"jwt:PROVIDER\", \"api_key\", \"mtls\" or \"none\"");
        };
        match text {
            "api_key" => Some(Self::ApiKey),
            "mtls" => Some(Self::Mtls),
            "none" => Some(Self::None),
            _ => match text.strip_prefix("jwt") {
                Some("" | ":") => {
                    let message = format!("{} names no provider", quote(text));
                    cx.error("invalid-value", &node.origin, message)
                        .hint("write \"jwt:NAME\" for tokens of [identity.providers.NAME]");
                    None
                }
                Some(rest) if rest.starts_with(':') => {
                    Some(Self::Jwt(rest.get(1..).unwrap_or_default().into()))
                }
                _ => cx.none_of(node, text, &["jwt:PROVIDER", "api_key", "mtls", "none"]),
            },
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Jwt(provider) => quote(&format!("jwt:{provider}")),
            Self::ApiKey => quote("api_key"),
            Self::Mtls => quote("mtls"),
            Self::None => quote("none"),
        }
    }
}
