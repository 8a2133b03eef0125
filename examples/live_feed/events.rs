//! What happens to an operation, whatever the type of its data, its end included.

use futures::stream::{self, BoxStream, StreamExt};
use resub::{Event, Gap, GraphQlError, Subscription, SubscriptionError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::show::Show;

/// One thing that happened.
pub(crate) enum Seen {
    Next(Item),
    Gap(Gap),
    /// An item that did not decode; the stream goes on.
    Unreadable(SubscriptionError),
    /// The last thing. Without an error, the server completed the operation.
    End(Option<SubscriptionError>),
}

/// An item.
pub(crate) struct Item {
    pub(crate) data: Option<Box<dyn Show>>,
    pub(crate) errors: Vec<GraphQlError>,
    pub(crate) extensions: Option<Map<String, Value>>,
}

impl Item {
    /// The error that came instead of data: how a failed operation looks on servers that send no
    /// `error` message.
    pub(crate) fn failure(&self) -> Option<&GraphQlError> {
        if self.data.is_none() { self.errors.first() } else { None }
    }
}

/// The events of one operation, each with the operation's index.
pub(crate) type Events = BoxStream<'static, (usize, Seen)>;

/// Follows a subscription to its end.
pub(crate) fn events<T: Show + DeserializeOwned + 'static>(
    index: usize,
    subscription: Subscription<T>,
) -> Events {
    stream::unfold(Some(subscription), move |subscription| async move {
        let mut subscription = subscription?;
        loop {
            let seen = match subscription.next().await {
                None => return Some(((index, Seen::End(None)), None)),
                Some(Err(error)) if error.is_terminal() => {
                    return Some(((index, Seen::End(Some(error))), None));
                }
                Some(Err(error)) => Seen::Unreadable(error),
                Some(Ok(Event::Gap(gap))) => Seen::Gap(gap),
                Some(Ok(Event::Next(response))) => Seen::Next(Item {
                    data: response.data.map(|data| Box::new(data) as Box<dyn Show>),
                    errors: response.errors,
                    extensions: response.extensions,
                }),
                // A kind of event that this program does not know.
                Some(Ok(_)) => continue,
            };
            return Some(((index, seen), Some(subscription)));
        }
    })
    .boxed()
}
