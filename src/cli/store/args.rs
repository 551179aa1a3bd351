//! What can be typed of the commands on the store.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::base::units::parse_duration;
use crate::identity::consumers::{GroupName, Subject};

/// How what was found is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Output {
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    pub(in crate::cli) json: bool,
}

/// Where a password comes from.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct PasswordFrom {
    /// Read the password from standard input, up to the end of the first line, instead of asking for it
    #[arg(long)]
    pub(in crate::cli) password_stdin: bool,
}

/// Users: who may log in.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum User {
    /// Add a user
    Add {
        /// What they type to log in
        #[arg(value_parser = name)]
        name: String,
        /// The roles of their tokens, separated by commas
        #[arg(long, value_delimiter = ',', value_parser = group)]
        roles: Vec<String>,
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// Give a user another password; sessions begun with the old one end
    Passwd {
        /// Whose
        name: String,
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// Give a user other roles, in place of those there are
    Roles {
        /// Whose
        name: String,
        /// All their roles, separated by commas; "" for none
        #[arg(value_name = "ROLES", value_parser = groups)]
        roles: Groups,
    },
    /// Keep a user from logging in, and end what they have begun
    Disable {
        /// Whom
        name: String,
    },
    /// Let a user log in again
    Enable {
        /// Whom
        name: String,
    },
    /// Remove a user, and end what they have begun
    Remove {
        /// Whom
        name: String,
    },
    /// List all users
    List,
}

/// Consumers: the parties that use services.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Consumer {
    /// Add a consumer
    Add {
        /// What it is called
        #[arg(value_parser = name)]
        name: String,
        /// What it belongs to, separated by commas: counts as its roles
        #[arg(long, value_delimiter = ',', value_parser = group)]
        groups: Vec<String>,
        /// The plan that bounds its use
        #[arg(long)]
        plan: Option<String>,
        /// Whose tokens are its, PROVIDER:sub; may be repeated
        #[arg(long = "subject", value_name = "PROVIDER:SUB", value_parser = subject)]
        subjects: Vec<Subject>,
    },
    /// Show a consumer with its keys and subjects
    Show {
        /// Which
        name: String,
    },
    /// List all consumers, those of the configuration as well
    List,
    /// Remove a consumer, and revoke its keys and the tokens of its subjects
    Remove {
        /// Which
        name: String,
    },
    /// Give a consumer other groups, in place of those there are
    Groups {
        /// Which
        name: String,
        /// All its groups, separated by commas; "" for none
        #[arg(value_name = "GROUPS", value_parser = groups)]
        groups: Groups,
    },
    /// Give a consumer another plan
    Plan {
        /// Which
        name: String,
        /// The plan; "" for none of its own
        plan: String,
    },
    /// Show what a consumer, and each of its keys that has a plan of its own, has used of its quota
    Usage {
        /// Whose
        name: String,
    },
    /// Make the tokens of a subject a consumer's
    Attach {
        /// Which
        name: String,
        /// Whose tokens, PROVIDER:sub
        #[arg(value_name = "PROVIDER:SUB", value_parser = subject)]
        subject: Subject,
    },
    /// Make the tokens of a subject nobody's
    Detach {
        /// Which
        name: String,
        /// Whose tokens, PROVIDER:sub
        #[arg(value_name = "PROVIDER:SUB", value_parser = subject)]
        subject: Subject,
    },
}

/// API keys of consumers.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Key {
    /// Make a key. It is shown this once: only its hash is kept
    Create {
        /// Whose: a consumer of the store or of the configuration
        #[arg(long)]
        consumer: String,
        /// After how long it ends, such as 90d, or "never"; absent: never
        #[arg(long, value_parser = lifetime)]
        expires: Option<Lifetime>,
        /// A plan of its own, in place of its consumer's: its use is counted by itself
        #[arg(long)]
        plan: Option<String>,
    },
    /// List keys by their visible beginning
    List {
        /// Those of this consumer alone
        #[arg(long)]
        consumer: Option<String>,
    },
    /// Revoke a key
    Revoke {
        /// Its visible beginning, such as ew_4k2v9x7q
        id: String,
    },
    /// Give a key another plan
    Plan {
        /// Its visible beginning
        id: String,
        /// The plan; "" for its consumer's
        plan: String,
    },
    /// Make a key in place of another one, which holds for a while yet
    Rotate {
        /// The visible beginning of the old one
        id: String,
        /// For how long both hold
        #[arg(long, value_parser = duration, default_value = "7d")]
        overlap: Duration,
        /// After how long the new one ends, or "never"; absent: it lasts as long as the old one was meant to
        #[arg(long, value_parser = lifetime)]
        expires: Option<Lifetime>,
    },
}

/// Tokens.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Token {
    /// Revoke one token, or all of a subject that were issued up to now
    Revoke {
        /// The token's id: its claim `jti`
        #[arg(long, value_name = "ID", value_parser = written_elsewhere, allow_hyphen_values = true,
            required_unless_present = "subject", conflicts_with = "subject")]
        jti: Option<String>,
        /// Whose tokens: their claim `sub`
        #[arg(long, value_parser = written_elsewhere, allow_hyphen_values = true)]
        subject: Option<String>,
        /// Only tokens of this provider; absent: whoever issued them
        #[arg(long)]
        provider: Option<String>,
        /// When the last of these tokens has expired: then it is forgotten
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "365d")]
        keep: Duration,
    },
    /// Say whether a token is good, why not, and what it says
    Verify {
        /// The token; absent: read from standard input
        token: Option<String>,
    },
    /// Issue a token that a provider with a signing key or a secret vouches for
    Issue {
        /// The provider; absent: the only one that can
        #[arg(long)]
        provider: Option<String>,
        /// Who it is for: its claim `sub`
        #[arg(long)]
        subject: String,
        /// Its roles, separated by commas
        #[arg(long, value_delimiter = ',', value_parser = group)]
        roles: Vec<String>,
        /// For how long it holds
        #[arg(long, value_parser = duration, default_value = "1h")]
        lifetime: Duration,
        /// Another claim; the value is JSON, or else a text. May be repeated
        #[arg(long = "claim", value_name = "NAME=VALUE")]
        claims: Vec<String>,
    },
}

/// Services: rows that are served as routes.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Service {
    /// Add a service
    Add {
        #[command(flatten)]
        form: ServiceForm,
        /// Put it in the place of one of its name
        #[arg(long)]
        replace: bool,
    },
    /// List all services, and what becomes of each
    List,
    /// Show a service as JSON
    Show {
        /// Which
        name: String,
    },
    /// Remove a service
    Remove {
        /// Which
        name: String,
    },
    /// Serve a service again
    Enable {
        /// Which
        name: String,
    },
    /// Serve a service no longer, and keep it
    Disable {
        /// Which
        name: String,
    },
    /// Say what is wrong with a service, and write nothing; without arguments with all of the store
    Check {
        #[command(flatten)]
        form: Option<ServiceForm>,
    },
}

/// A service on the command line.
#[derive(Debug, Args)]
pub(in crate::cli) struct ServiceForm {
    /// What it is called; `-` reads all of it from standard input, as JSON
    pub(in crate::cli) name: Option<String>,
    /// The public path: /a/b, /a/{id} or /a/*
    #[arg(long)]
    pub(in crate::cli) path: Option<String>,
    /// Methods, separated by commas; none: GET where all endpoints are http-get, else POST
    #[arg(long, value_delimiter = ',')]
    pub(in crate::cli) methods: Vec<String>,
    /// Host names, separated by commas; none: all
    #[arg(long, value_delimiter = ',')]
    pub(in crate::cli) hosts: Vec<String>,
    /// What is asked, TYPE=URL: http-get=http://users:3001/api, http-post=…, amqp=BROKER/QUEUE; may be repeated
    #[arg(long = "endpoint", value_name = "TYPE=URL", value_parser = endpoint)]
    pub(in crate::cli) endpoints: Vec<Endpoint>,
    /// Roles, separated by commas, all of which the caller must hold
    #[arg(long, value_delimiter = ',')]
    pub(in crate::cli) roles: Vec<String>,
    /// Keep it, and do not serve it yet
    #[arg(long)]
    pub(in crate::cli) disabled: bool,
}

/// An endpoint on the command line.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Endpoint {
    kind: String,
    url: String,
}

impl Endpoint {
    pub(in crate::cli) fn json(&self) -> serde_json::Value {
        serde_json::json!({ "type": self.kind, "url": self.url })
    }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let (kind, url) = text
        .split_once('=')
        .ok_or_else(|| "it is written TYPE=URL, such as http-get=http://users:3001/api/users".to_owned())?;
    Ok(Endpoint { kind: kind.to_owned(), url: url.to_owned() })
}

/// How long a key lasts.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum Lifetime {
    /// It has no end.
    Never,
    /// From now on.
    For(Duration),
}

/// A list of names, as one argument.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Groups(pub(in crate::cli) Vec<String>);

/// Longest name, as in the configuration.
const NAME_BYTES_MAX: usize = 256;

fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, without control characters"));
    }
    Ok(text.to_owned())
}

fn group(text: &str) -> Result<String, String> {
    GroupName::parse(text).map(|name| name.0).map_err(|why| format!("{text:?} {why}"))
}

fn groups(text: &str) -> Result<Groups, String> {
    let names = text.split(',').filter(|_| !text.is_empty()).map(group);
    names.collect::<Result<_, _>>().map(Groups)
}

fn subject(text: &str) -> Result<Subject, String> {
    Subject::parse(text).ok_or_else(|| "it is written PROVIDER:sub, such as local:alice".to_owned())
}

/// What an issuer chose, which may begin with a hyphen; but not with two: that is the next option, behind an id that the
/// caller's variable did not hold.
fn written_elsewhere(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with("--") {
        return Err("there is no value before the next option".to_owned());
    }
    Ok(text.to_owned())
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" { Ok(Lifetime::Never) } else { duration(text).map(Lifetime::For) }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub(in crate::cli) const USER_NOTES: &str = "\
Examples:
  edgeward user add alice --roles admin,ops                asks for the password
  pass show alice | edgeward user add alice --password-stdin
  edgeward user roles alice ops
  edgeward user list --json | jq '.[].name'

Exit status: 0 done, 1 it failed (the store is down, there is no such user, there is one already), 2 wrong usage.";

pub(in crate::cli) const CONSUMER_NOTES: &str = "\
Examples:
  edgeward consumer add mobile --groups paid --plan standard --subject auth0:alice
  edgeward consumer show mobile
  edgeward consumer usage mobile --json | jq .remaining
  edgeward consumer remove mobile";

pub(in crate::cli) const KEY_NOTES: &str = "\
Examples:
  edgeward key create --consumer mobile --expires 90d
  edgeward key create --consumer mobile --plan trial
  edgeward key rotate ew_4k2v9x7q --overlap 7d
  edgeward key revoke ew_4k2v9x7q";

pub(in crate::cli) const TOKEN_NOTES: &str = "\
Examples:
  edgeward token revoke --subject alice --provider local
  edgeward token revoke --jti 0198c1f2-7e1a-7b7e-8d4c-2f6f1b1f3f10 --keep 1h
  edgeward token issue --subject alice --roles admin --lifetime 10m
  edgeward token verify < token.txt

Revocations hold in all processes on the store within a second, in the one on this machine's control socket at once.";

pub(in crate::cli) const SERVICE_NOTES: &str = "\
Examples:
  edgeward service add users --path /users --endpoint http-get=http://users:3001/api/users --roles user
  edgeward service add 'dashboard' --path '/dashboard/{id}' \\
    --endpoint 'http-get=http://users:3001/api/users/{path.id}' --endpoint 'http-get=http://orders:3002/api/{path.id}'
  edgeward service show users | edgeward service check -
  edgeward service check

A service is checked as `edgeward check` checks a route before it is written, and served within a second by all processes
on the store whose configuration says `services = true` in [store].

Exit status: 0 done, 1 it failed or something is wrong with the service, 2 wrong usage.";
