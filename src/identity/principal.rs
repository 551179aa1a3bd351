//! Who a request is from, once that is proved.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::consumer::{ApiKey, Consumer};
use super::token::Token;
use crate::base::client_cert::ClientCert;

/// Who a request is from.
#[derive(Debug, Clone)]
pub struct Principal {
    /// How that was proved.
    pub proof: Proof,
    /// The consumer it belongs to: the key's, or the one whose `subjects` or provider the token names.
    pub consumer: Option<Arc<Consumer>>,
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

impl Principal {
    /// Who it is: the token's subject, the certificate's, or the consumer's name.
    pub fn subject(&self) -> Option<&str> {
        match &self.proof {
            Proof::Token(token) => token.subject.as_deref(),
            Proof::ApiKey(key) => Some(&key.consumer.name),
            Proof::Certificate(_) => None,
        }
    }

    /// The roles it holds: those of its token, then the groups of its consumer.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let token = self.token().map(|token| &*token.roles).unwrap_or_default();
        let groups = self.consumer.as_ref().map(|consumer| &*consumer.groups).unwrap_or_default();
        token.iter().chain(groups).map(|role| &**role)
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
}
