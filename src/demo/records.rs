//! What the sample services know.

use serde_json::{Value, json};

/// Which of the four services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// People.
    Users,
    /// Things to buy; version 2 of its API shows prices with their currency.
    Products,
    /// Who bought what.
    Orders,
    /// Who paid.
    Payments,
}

impl Kind {
    /// The collection's name, as in `/v1/users`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Products => "products",
            Self::Orders => "orders",
            Self::Payments => "payments",
        }
    }

    /// The field by which records can be listed: `/v1/orders/userId/2`.
    pub(super) const fn reference(self) -> Option<&'static str> {
        match self {
            Self::Orders => Some("userId"),
            Self::Payments => Some("orderId"),
            Self::Users | Self::Products => None,
        }
    }

    /// Whether new records can be posted.
    pub(super) const fn takes_new_ones(self) -> bool {
        matches!(self, Self::Orders | Self::Payments)
    }

    /// A record as this version of the API shows it.
    pub(super) fn show(self, record: &Value, version: u8) -> Value {
        let mut shown = record.clone();
        if version >= 2
            && let Some(cents) = record.get("priceCents")
            && let Some(fields) = shown.as_object_mut()
        {
            fields.shift_remove("priceCents");
            fields.insert("price".to_owned(), json!({ "cents": cents, "currency": "EUR" }));
        }
        shown
    }

    /// The records at the start. Their ids count from 1 without gaps.
    pub(super) fn first_records(self) -> Vec<Value> {
        match self {
            Self::Users => vec![
                json!({ "id": 1, "firstName": "Ada", "lastName": "Moreau", "email": "ada@example.com" }),
                json!({ "id": 2, "firstName": "Jonas", "lastName": "Berg", "email": "jonas@example.com" }),
                json!({ "id": 3, "firstName": "Mei", "lastName": "Tanaka", "email": "mei@example.com" }),
            ],
            Self::Products => vec![
                json!({ "id": 1, "name": "Lamp", "priceCents": 4900 }),
                json!({ "id": 2, "name": "Desk", "priceCents": 32_900 }),
                json!({ "id": 3, "name": "Chair", "priceCents": 18_900 }),
                json!({ "id": 4, "name": "Shelf", "priceCents": 9900 }),
            ],
            Self::Orders => vec![
                json!({ "id": 1, "userId": 1, "items": [{ "productId": 2, "quantity": 1 }, { "productId": 3, "quantity": 2 }] }),
                json!({ "id": 2, "userId": 2, "items": [{ "productId": 1, "quantity": 3 }] }),
                json!({ "id": 3, "userId": 2, "items": [{ "productId": 4, "quantity": 1 }] }),
            ],
            Self::Payments => vec![
                json!({ "id": 1, "orderId": 1, "cents": 70_700, "state": "settled" }),
                json!({ "id": 2, "orderId": 2, "cents": 14_700, "state": "settled" }),
                json!({ "id": 3, "orderId": 3, "cents": 9900, "state": "pending" }),
            ],
        }
    }
}
