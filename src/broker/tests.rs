//! What needs no broker.

use super::*;

#[tokio::test]
async fn instances_that_lose_a_broker_together_do_not_come_back_in_step() {
    let metrics = Metrics::new();
    let mut brokers = Vec::new();
    task::testing::come_back_one_by_one(|address| {
        let settings = BrokerSettings {
            name: "main".into(),
            url: BrokerUrl::parse(&format!("amqp://{address}")).unwrap(),
            ca: None,
            channels: 1,
            max_pending: 1,
            connect_timeout: Duration::from_secs(5),
        };
        let broker = Broker(Broker::make(settings, metrics.broker("main")).unwrap());
        broker.start();
        brokers.push(broker);
    })
    .await;
}
