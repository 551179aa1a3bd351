//! Users: who may log in.

use super::revocations::REVOKE;
use super::{Store, StoreError, change, names_from_text, names_to_text, next, on};

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What they type, and the `sub` of their tokens.
    pub name: String,
    /// The hash of their password, a PHC string.
    pub password: String,
    /// The roles of their tokens.
    pub roles: Vec<String>,
    /// Whether they may not log in at the moment.
    pub disabled: bool,
}

/// What becomes of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserChange {
    /// Another password: the hash, a PHC string.
    Password(String),
    /// Other roles, in place of those there are.
    Roles(Vec<String>),
    /// May not log in, or may again.
    Disabled(bool),
    /// Is no more.
    Removed,
}

/// The access tokens that logins give.
#[derive(Debug, Clone, Copy)]
pub struct Issued<'a> {
    /// The provider that issues them.
    pub provider: &'a str,
    /// When the last of those issued by now has expired, in Unix seconds.
    pub kept_until: i64,
}

type Row = (String, String, String, bool);

fn user((name, password, roles, disabled): Row) -> User {
    User { name, password, roles: names_from_text(&roles), disabled }
}

impl Store {
    /// The user called `name`.
    pub async fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        const SQL: &str = "SELECT name, password, roles, disabled FROM edgeward_users WHERE name = $1";
        self.call(async {
            let row: Option<Row> =
                on!(self, pool => sqlx::query_as(SQL).bind(name).fetch_optional(pool).await?);
            Ok(row.map(user))
        })
        .await
    }

    /// At most `limit` users by name, those after `after`.
    pub async fn users(&self, after: &str, limit: u32) -> Result<Vec<User>, StoreError> {
        const SQL: &str = "SELECT name, password, roles, disabled FROM edgeward_users \
            WHERE name > $1 ORDER BY name LIMIT $2";
        self.call(async {
            let rows: Vec<Row> = on!(self, pool =>
                sqlx::query_as(SQL).bind(after).bind(i64::from(limit)).fetch_all(pool).await?);
            Ok(rows.into_iter().map(user).collect())
        })
        .await
    }

    /// Adds `user`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if there is one of the name.
    pub async fn add_user(&self, user: &User, now: i64) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO edgeward_users (name, password, roles, disabled, created_at, changed_at) \
            VALUES ($1, $2, $3, $4, $5, $5)";
        let added = self
            .call(async {
                on!(self, pool => sqlx::query(SQL)
                    .bind(&user.name)
                    .bind(&user.password)
                    .bind(names_to_text(&user.roles))
                    .bind(user.disabled)
                    .bind(now)
                    .execute(pool)
                    .await?
                    .rows_affected());
                Ok(())
            })
            .await;
        added.map_err(|error| match error {
            StoreError::Conflict(_) => StoreError::Conflict(format!("there is a user {} already", user.name)),
            error => error,
        })
    }

    /// Replaces the hash `old` of a user's password by `new`, only if it still is `old`: an upgrade of the hash at a login
    /// must not undo a change of the password. False if it is not.
    pub async fn replace_password(&self, name: &str, old: &str, new: &str) -> Result<bool, StoreError> {
        const SQL: &str = "UPDATE edgeward_users SET password = $3 WHERE name = $1 AND password = $2";
        self.call(async {
            Ok(on!(self, pool =>
                sqlx::query(SQL).bind(name).bind(old).bind(new).execute(pool).await?.rows_affected() == 1))
        })
        .await
    }

    /// Changes or removes the user called `name`, and ends what rests on how it was, all or nothing. False if there is no
    /// such user.
    ///
    /// Refresh tokens end with the password, with the right to log in, and with the user. With `tokens`, access tokens
    /// that were issued up to `now` end as well, also when roles change: a refresh gives new ones.
    pub async fn change_user(
        &self,
        name: &str,
        change: &UserChange,
        tokens: Option<Issued<'_>>,
        now: i64,
    ) -> Result<bool, StoreError> {
        const PASSWORD: &str = "UPDATE edgeward_users SET password = $2, changed_at = $3 WHERE name = $1";
        const ROLES: &str = "UPDATE edgeward_users SET roles = $2, changed_at = $3 WHERE name = $1";
        const DISABLED: &str = "UPDATE edgeward_users SET disabled = $2, changed_at = $3 WHERE name = $1";
        const REMOVE: &str = "DELETE FROM edgeward_users WHERE name = $1";
        const END: &str =
            "UPDATE edgeward_families SET ended_at = $2 WHERE user_name = $1 AND ended_at IS NULL";
        let ends_families = !matches!(change, UserChange::Roles(_) | UserChange::Disabled(false));
        let tokens = tokens.filter(|_| !matches!(change, UserChange::Disabled(false)));
        self.call(async {
            Ok(change!(self, tx => {
                // Whoever changes something readers must hear of takes this lock first.
                let number = next!(tx);
                let statement = match change {
                    UserChange::Password(hash) => sqlx::query(PASSWORD).bind(name).bind(hash).bind(now),
                    UserChange::Roles(roles) => {
                        sqlx::query(ROLES).bind(name).bind(names_to_text(roles)).bind(now)
                    }
                    UserChange::Disabled(disabled) => sqlx::query(DISABLED).bind(name).bind(*disabled).bind(now),
                    UserChange::Removed => sqlx::query(REMOVE).bind(name),
                };
                let found = statement.execute(&mut *tx).await?.rows_affected() > 0;
                if found && ends_families {
                    sqlx::query(END).bind(name).bind(now).execute(&mut *tx).await?;
                }
                if let (true, Some(issued)) = (found, tokens) {
                    sqlx::query(REVOKE)
                        .bind("subject")
                        .bind(issued.provider)
                        .bind(name)
                        .bind(now)
                        .bind(issued.kept_until)
                        .bind(number)
                        .execute(&mut *tx)
                        .await?;
                }
                found
            }))
        })
        .await
    }
}
