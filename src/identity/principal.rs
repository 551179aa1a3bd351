//! Who a request is from, once that is proved.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::consumer::{ApiKey, Consumer};
use super::forms::{Encoding, Form};
use super::token::Token;
use crate::base::client_cert::ClientCert;
use crate::routing::template::{ConsumerView, Who};

/// Who a request is from.
#[derive(Debug, Clone)]
pub struct Principal {
    /// How that was proved.
    pub proof: Proof,
    /// The consumer it belongs to: the key's, or the one whose `subjects` or provider the token names.
    pub consumer: Option<Arc<Consumer>>,
    /// When it is no longer proved, in Unix seconds, leeway included.
    pub until: Option<i64>,
}

/// How it was proved who a request is from.
#[derive(Debug, Clone)]
pub enum Proof {
    /// By a token.
    Token(Arc<Token>),
    /// By an API key.
    ApiKey(Arc<ApiKey>),
    /// By a client certificate.
    Certificate(Arc<ClientCert>),
}

impl Proof {
    /// The kind, for metrics.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Token(_) => "jwt",
            Self::ApiKey(_) => "api_key",
            Self::Certificate(_) => "mtls",
        }
    }
}

impl Principal {
    /// Who it is: the token's subject, the certificate's, or the consumer's name.
    pub fn subject(&self) -> Option<&str> {
        match &self.proof {
            Proof::Token(token) => token.subject.as_deref(),
            Proof::ApiKey(key) => Some(&key.consumer.name),
            Proof::Certificate(cert) => cert.principal().and_then(|name| name.to_str().ok()),
        }
    }

    /// How it was proved, for the log: `jwt:PROVIDER`, `api_key:PREFIX`, `mtls`.
    pub fn method(&self) -> String {
        match &self.proof {
            Proof::Token(token) => format!("jwt:{}", token.provider),
            Proof::ApiKey(key) => format!("api_key:{}", key.id),
            Proof::Certificate(_) => "mtls".to_owned(),
        }
    }

    /// The roles it holds: those of its token, then the groups of its consumer.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let token = self.token().map(|token| &*token.roles).unwrap_or_default();
        token.iter().chain(self.groups()).map(|role| &**role)
    }

    /// The scopes of its token.
    pub fn scopes(&self) -> &[Box<str>] {
        self.token().map(|token| &*token.scopes).unwrap_or_default()
    }

    /// The claims of its token.
    pub fn claims(&self) -> Option<&Map<String, Value>> {
        self.token().map(|token| &token.claims)
    }

    /// Its token, if it came with one.
    pub fn token(&self) -> Option<&Arc<Token>> {
        match &self.proof {
            Proof::Token(token) => Some(token),
            _ => None,
        }
    }

    /// What templates and expressions may say of it.
    pub fn view(&self) -> Who<'_> {
        let consumer = self.consumer.as_deref().map(|consumer| ConsumerView {
            name: &consumer.name,
            groups: &consumer.groups,
            plan: consumer.plan.as_deref(),
        });
        Who { claims: self.claims(), consumer }
    }

    /// The subject for services.
    pub fn subject_form(&self) -> Cow<'_, Form> {
        match &self.proof {
            Proof::Token(token) => Cow::Borrowed(token.forms.subject(token.subject.as_deref())),
            Proof::ApiKey(key) => Cow::Owned(Form::of(&key.consumer.name)),
            Proof::Certificate(cert) => {
                Cow::Owned(cert.principal().cloned().map(Form::Value).unwrap_or_default())
            }
        }
    }

    /// Its roles for services, separated by commas.
    pub fn roles_form(&self) -> Cow<'_, Form> {
        match self.token().filter(|_| self.groups().is_empty()) {
            Some(token) => Cow::Borrowed(token.forms.roles(&token.roles)),
            None => Cow::Owned(Form::list(self.roles())),
        }
    }

    /// The claims of its token for services.
    pub fn claims_form(&self, encoding: Encoding) -> Option<&Form> {
        self.token().map(|token| token.forms.claims(&token.payload, encoding))
    }

    /// Its consumer for services.
    pub fn consumer_form(&self) -> Form {
        self.consumer.as_ref().map(|consumer| Form::of(&consumer.name)).unwrap_or_default()
    }

    fn groups(&self) -> &[Box<str>] {
        self.consumer.as_ref().map(|consumer| &*consumer.groups).unwrap_or_default()
    }
}
