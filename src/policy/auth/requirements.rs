//! What a proof has to amount to: roles, scopes, an expression. Everything that is given must hold.

use crate::base::reason::Reason;
use crate::identity::principal::Principal;
use crate::routing::expression::{Expression, Failed};

/// What a proof has to amount to.
#[derive(Debug, Clone, Default)]
pub struct Requirements {
    /// Every one of these roles.
    pub roles: Box<[Box<str>]>,
    /// One of these, if there are any.
    pub any_role: Box<[Box<str>]>,
    /// Every one of these scopes.
    pub scopes: Box<[Box<str>]>,
    /// That this holds.
    pub when: Option<Box<Expression>>,
}

impl Requirements {
    /// The first requirement that `principal` does not meet, and the whole story.
    pub(super) fn check(
        &self,
        principal: Option<&Principal>,
        when: impl FnOnce(&Expression) -> Result<bool, Failed>,
    ) -> Result<(), (Reason, String)> {
        match principal {
            Some(principal) => self.check_held(principal)?,
            None if self.wants_somebody() => {
                return Err((Reason::CredentialsRequired, "nobody holds no role and no scope".to_owned()));
            }
            None => {}
        }
        let Some(expression) = &self.when else { return Ok(()) };
        match when(expression) {
            Ok(true) => Ok(()),
            Ok(false) => Err((Reason::RuleDenied, format!("`when` does not hold: {}", expression.text()))),
            Err(failed) => Err((Reason::RuleDenied, format!("`when` cannot be evaluated: {failed}"))),
        }
    }

    /// Whether it asks for what only somebody can hold.
    pub fn wants_somebody(&self) -> bool {
        !(self.roles.is_empty() && self.any_role.is_empty() && self.scopes.is_empty())
    }

    fn check_held(&self, principal: &Principal) -> Result<(), (Reason, String)> {
        let holds = |wanted: &str| principal.roles().any(|role| role == wanted);
        if let Some(missing) = self.roles.iter().find(|role| !holds(role)) {
            return Err((
                Reason::RoleMissing,
                format!("the role {missing:?} is missing; {}", held(principal)),
            ));
        }
        if !self.any_role.is_empty() && !self.any_role.iter().any(|role| holds(role)) {
            let detail = format!("none of the roles {:?} is held; {}", self.any_role, held(principal));
            return Err((Reason::RoleMissing, detail));
        }
        let scopes = principal.scopes();
        match self.scopes.iter().find(|scope| !scopes.contains(scope)) {
            Some(missing) => {
                Err((Reason::ScopeMissing, format!("the scope {missing:?} is missing; it has {scopes:?}")))
            }
            None => Ok(()),
        }
    }
}

/// The roles there are, at most so many: who holds more is told of by the log of whoever gave them.
fn held(principal: &Principal) -> String {
    let roles: Vec<_> = principal.roles().take(ROLES_SHOWN_MAX).collect();
    format!("held: {roles:?}")
}

const ROLES_SHOWN_MAX: usize = 16;
