use super::*;
use crate::base::service::Switch;

fn ask(service: &Sample, method: &str, target: &str, body: &'static str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(target).body(()).unwrap();
    let response = service.respond(&request.into_parts().0, &Bytes::from_static(body.as_bytes()));
    assert_eq!(response.headers()["x-served-by"], service.instance.as_str());
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
}

fn delay(service: &Sample, target: &str) -> Duration {
    service.delay(&Request::builder().uri(target).body(()).unwrap().into_parts().0)
}

#[test]
fn records_are_listed_and_found() {
    let users = Sample::new(Kind::Users, "users-1");
    let (status, list) = ask(&users, "GET", "/v1/users", "");
    assert_eq!((status, list.as_array().unwrap().len()), (200, 3));
    assert_eq!(ask(&users, "GET", "/v1/users/2", "").1["firstName"], "Jonas");
    assert_eq!(ask(&users, "GET", "/v1/users/9", "").0, 404);
    assert_eq!(ask(&users, "GET", "/v1/usersx", "").0, 404);
    assert_eq!(ask(&users, "GET", "/nothing", "").0, 404);
    assert_eq!(ask(&users, "DELETE", "/v1/users/2", "").0, 405);
}

#[test]
fn orders_are_listed_by_user_and_taken() {
    let orders = Sample::new(Kind::Orders, "orders");
    assert_eq!(ask(&orders, "GET", "/v1/orders/userId/2", "").1.as_array().unwrap().len(), 2);
    let (status, order) = ask(&orders, "POST", "/v1/orders", r#"{"id":1,"userId":3,"items":[]}"#);
    assert_eq!((status, &order["id"]), (201, &json!(4)));
    assert_eq!(ask(&orders, "GET", "/v1/orders/4", "").1["userId"], 3);
    assert_eq!(ask(&orders, "POST", "/v1/orders", "[1]").0, 400);
}

#[test]
fn there_can_be_enough_of_them() {
    let payments = Sample::new(Kind::Payments, "payments");
    let refused = (0..=RECORDS_MAX).map(|_| ask(&payments, "POST", "/v1/payments", "{}").0).last();
    assert_eq!(refused, Some(507));
}

#[test]
fn the_second_version_shows_prices_with_their_currency() {
    let products = Sample::new(Kind::Products, "products");
    assert_eq!(ask(&products, "GET", "/v1/products/1", "").1["priceCents"], 4900);
    let (_, product) = ask(&products, "GET", "/v2/products/1", "");
    assert_eq!(product["price"], json!({ "cents": 4900, "currency": "EUR" }));
    assert!(product.get("priceCents").is_none());
}

/// What heals a service must work however bad it feels.
#[test]
fn a_service_can_be_made_slow_or_failing_and_healed() {
    let users = Sample::new(Kind::Users, "users-1");
    assert_eq!(ask(&users, "POST", "/_demo/slow?ms=1500", "").0, 200);
    assert_eq!(delay(&users, "/v1/users"), Duration::from_millis(1500));
    assert_eq!(delay(&users, "/_demo/heal"), Duration::ZERO);
    assert_eq!(ask(&users, "POST", "/_demo/fail?status=503", "").0, 200);
    assert_eq!(ask(&users, "GET", "/v1/users", "").0, 503);
    assert_eq!(ask(&users, "GET", "/health", "").0, 503);
    assert_eq!(ask(&users, "POST", "/_demo/heal", "").1["now"], "well");
    assert_eq!(ask(&users, "GET", "/health", "").0, 200);
    assert_eq!(delay(&users, "/v1/users"), Duration::ZERO);
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let users = Sample::new(Kind::Users, "users-1");
    for target in [
        "/_demo/slow",
        "/_demo/slow?ms=x",
        "/_demo/slow?ms=99999999",
        "/_demo/fail?status=200",
        "/_demo/fail?status=99999",
        "/_demo/dance",
    ] {
        assert_eq!(ask(&users, "POST", target, "").0, 400, "{target}");
    }
    assert_eq!(ask(&users, "GET", "/_demo/heal", "").0, 405);
    assert_eq!(ask(&users, "GET", "/v1/users", "").0, 200);
}

async fn order(service: &Sample, method: &str, target: &str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(target).body(Bytes::new()).unwrap();
    let response = service.call(request).await;
    assert_eq!(response.headers()["x-served-by"], service.instance.as_str());
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
}

#[tokio::test]
async fn a_service_stops_and_starts_others() {
    let (switch, mut turns) = Switch::new();
    let (own, _) = Switch::new();
    let switches = Switches::new([("users-1", switch), ("orders-1", own)]);
    let orders = Sample::new(Kind::Orders, "orders-1").among(switches);
    let serves = async move {
        let mut done = Vec::new();
        while let Some(turn) = turns.recv().await {
            done.push(turn.on);
            // It cannot be started a second time.
            let told = if done.len() < 3 { Ok(()) } else { Err("cannot listen".to_owned()) };
            turn.done.send(told).unwrap();
        }
        done
    };
    let asks = async move {
        let stopped = order(&orders, "POST", "/_demo/stop?service=users-1").await;
        assert_eq!(stopped, (200, json!({ "service": "users-1", "now": "stopped" })));
        assert_eq!(order(&orders, "POST", "/_demo/start?service=users-1").await.1["now"], "running");
        let failed = order(&orders, "POST", "/_demo/start?service=users-1").await;
        assert_eq!(failed, (500, json!({ "error": "cannot listen" })));
        let unknown = order(&orders, "POST", "/_demo/stop?service=user").await;
        assert_eq!(unknown, (400, json!({ "error": "\"user\" is none of users-1, orders-1" })));
        assert_eq!(order(&orders, "POST", "/_demo/stop").await.0, 400);
        assert_eq!(
            order(&orders, "POST", "/_demo/stop?service=orders-1").await.0,
            400,
            "nobody stops itself"
        );
        assert_eq!(order(&orders, "GET", "/_demo/stop?service=users-1").await.0, 405);
    };
    let (done, ()) = tokio::join!(serves, asks);
    assert_eq!(done, [false, true, true]);
}
