//! A client of a message broker: declares, answers questions, and hears what is published. Over `lapin`, as the gateway.

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::task::JoinHandle;

use super::{eventually, within};

/// A connection with one channel. Both end with it.
pub struct Amqp {
    connection: Connection,
    channel: Channel,
}

impl Amqp {
    /// Connects, as soon as the broker lets it.
    pub async fn connect(url: &str) -> Self {
        let connection = eventually("the broker lets a test in", async || {
            Connection::connect(url, ConnectionProperties::default()).await.ok()
        })
        .await;
        let channel = within("a channel", connection.create_channel()).await.unwrap();
        within("confirms", channel.confirm_select(ConfirmSelectOptions::default())).await.unwrap();
        Self { connection, channel }
    }

    /// For what has no word here.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Declares a queue that outlives the broker's restart.
    pub async fn queue(&self, name: &str) {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declared = self.channel.queue_declare(name.into(), options, FieldTable::default());
        within("a queue", declared).await.unwrap();
    }

    pub async fn delete_queue(&self, name: &str) {
        let deleted = self.channel.queue_delete(name.into(), QueueDeleteOptions::default());
        within("a queue to go", deleted).await.unwrap();
    }

    /// How many messages wait in a queue.
    pub async fn waiting(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { durable: true, passive: true, ..Default::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        within("a queue's length", declared).await.unwrap().message_count()
    }

    /// Declares a topic exchange that outlives the broker's restart.
    pub async fn exchange(&self, name: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declared =
            self.channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default());
        within("an exchange", declared).await.unwrap();
    }

    pub async fn delete_exchange(&self, name: &str) {
        let deleted = self.channel.exchange_delete(name.into(), ExchangeDeleteOptions::default());
        within("an exchange to go", deleted).await.unwrap();
    }

    /// Routes what is published to `exchange` with a routing key like `pattern` to `queue`.
    pub async fn bind(&self, queue: &str, exchange: &str, pattern: &str) {
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(
            queue.into(),
            exchange.into(),
            pattern.into(),
            options,
            FieldTable::default(),
        );
        within("a binding", bound).await.unwrap();
    }

    /// Takes what comes to `queue`, each message once and for good.
    pub async fn take(&self, queue: &str) -> Letters {
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consumer = self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        Letters { consumer: within("a consumer", consumer).await.unwrap() }
    }

    /// Hears what is published to `exchange` with a routing key like `pattern` from now on.
    pub async fn listen(&self, exchange: &str, pattern: &str) -> Letters {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let declared = self.channel.queue_declare("".into(), options, FieldTable::default());
        let queue = within("a queue of one's own", declared).await.unwrap().name().as_str().to_owned();
        self.bind(&queue, exchange, pattern).await;
        self.take(&queue).await
    }

    /// Publishes, and waits until the broker has it.
    pub async fn publish(&self, exchange: &str, routing_key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties);
        let confirmed = within("a message to be sent", sent).await.unwrap();
        within("a confirm", confirmed).await.unwrap();
    }

    /// Answers `letter`: to the queue it names, with its correlation id unless `told` has another.
    pub async fn reply(&self, letter: &Letter, told: Told) {
        let Some(place) = letter.properties.reply_to() else {
            panic!("nobody waits for an answer to {letter:?}")
        };
        answer(&self.channel, place.as_str(), letter, told).await.unwrap();
    }

    /// Declares `queue` and answers each message in it with what `answer` makes of it: one answer, none, or many, in the
    /// order in which they come. Ends with the value, or with the connection.
    pub async fn serve<I>(
        &self,
        queue: &str,
        mut answers: impl FnMut(&Letter) -> I + Send + 'static,
    ) -> Served
    where
        I: IntoIterator<Item = Told>,
        I::IntoIter: Send,
    {
        self.queue(queue).await;
        let mut letters = self.take(queue).await;
        let channel = self.channel.clone();
        let task = tokio::spawn(async move {
            while let Some(letter) = letters.try_next().await {
                let told = answers(&letter).into_iter();
                let Some(place) = letter.properties.reply_to() else { continue };
                for told in told {
                    if answer(&channel, place.as_str(), &letter, told).await.is_err() {
                        return;
                    }
                }
            }
        });
        Served { task }
    }

    /// Ends the connection in an orderly way.
    pub async fn close(self) {
        let _ = within("a connection to close", self.connection.close(200, "bye".into())).await;
    }
}

/// A queue that is answered. Dropping it ends that.
pub struct Served {
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Messages as they come.
pub struct Letters {
    consumer: Consumer,
}

impl Letters {
    /// The next message; one must come.
    pub async fn next(&mut self) -> Letter {
        within("a message", self.try_next()).await.expect("the connection to the broker stands")
    }

    /// The next message, however long it takes; `None` when the connection or the queue is gone.
    pub async fn try_next(&mut self) -> Option<Letter> {
        let delivery = self.consumer.next().await?.ok()?;
        Some(Letter {
            exchange: delivery.exchange.as_str().to_owned(),
            routing_key: delivery.routing_key.as_str().to_owned(),
            body: delivery.data,
            properties: delivery.properties,
        })
    }

    /// The next message for which `wanted` holds. Those before it are dropped.
    pub async fn find(&mut self, what: &str, mut wanted: impl FnMut(&Letter) -> bool) -> Letter {
        let found = async {
            loop {
                let letter = self.try_next().await.expect("the connection to the broker stands");
                if wanted(&letter) {
                    return letter;
                }
            }
        };
        within(what, found).await
    }
}

/// A message that came.
#[derive(Debug)]
pub struct Letter {
    pub exchange: String,
    pub routing_key: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl Letter {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    pub fn content_type(&self) -> Option<&str> {
        self.properties.content_type().as_ref().map(|it| it.as_str())
    }

    pub fn correlation(&self) -> Option<&str> {
        self.properties.correlation_id().as_ref().map(|it| it.as_str())
    }

    /// A header that is a string.
    pub fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(value) => Some(value.to_string()),
            AMQPValue::ShortString(value) => Some(value.to_string()),
            other => panic!("header {name} is no string: {other:?}"),
        }
    }
}

/// An answer to a message.
#[derive(Clone, Debug, Default)]
pub struct Told {
    body: Vec<u8>,
    content_type: Option<String>,
    correlation: Option<String>,
    headers: Vec<(String, String)>,
}

impl Told {
    pub fn json(value: &serde_json::Value) -> Self {
        Self::bytes(value.to_string()).content_type("application/json")
    }

    /// Without a content type.
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    pub fn content_type(mut self, content_type: &str) -> Self {
        self.content_type = Some(content_type.to_owned());
        self
    }

    /// Answers another question than the one that was asked.
    pub fn correlation(mut self, id: &str) -> Self {
        self.correlation = Some(id.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

async fn answer(channel: &Channel, place: &str, letter: &Letter, told: Told) -> lapin::Result<()> {
    let mut properties = BasicProperties::default();
    let correlation = told.correlation.as_deref().or(letter.correlation());
    if let Some(correlation) = correlation {
        properties = properties.with_correlation_id(correlation.into());
    }
    if let Some(content_type) = &told.content_type {
        properties = properties.with_content_type(content_type.as_str().into());
    }
    if !told.headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, value) in &told.headers {
            table.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
        }
        properties = properties.with_headers(table);
    }
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), place.into(), options, &told.body, properties).await.map(drop)
}
