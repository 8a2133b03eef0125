//! The two ways in which an application reads many streams: a task for each, or one task for all.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream::select_all};
use tokio::sync::Semaphore;

use super::gate::Gate;
use crate::{feed::Data, job::Result};

/// How streams are read.
pub(crate) trait Style {
    async fn read<T: Data, S>(streams: Vec<S>, phases: [u64; 2], gate: &mut Gate) -> Result<()>
    where
        S: Stream<Item = Result<T>> + Unpin + Send + 'static;
}

/// A task for each.
pub(crate) struct Tasks;

impl Style for Tasks {
    async fn read<T: Data, S>(streams: Vec<S>, phases: [u64; 2], gate: &mut Gate) -> Result<()>
    where
        S: Stream<Item = Result<T>> + Unpin + Send + 'static,
    {
        let (all, passed) = (u32::try_from(streams.len())?, Arc::new(Semaphore::new(0)));
        let mut tasks = Vec::with_capacity(streams.len());
        for mut stream in streams {
            let (mut meter, passed) = (gate.meter(phases[1]), Arc::clone(&passed));
            tasks.push(tokio::spawn(async move {
                for events in phases {
                    for _ in 0..events {
                        match stream.next().await {
                            Some(Ok(data)) => meter.see(&data),
                            other => {
                                eprintln!(
                                    "a stream ended early: {:?}",
                                    other.map(|end| end.map(|_| ()))
                                );
                                passed.close();
                                return None;
                            }
                        }
                    }
                    meter.hand_in();
                    passed.add_permits(1);
                }
                // Returned, so that it is not cancelled while others are measured.
                Some(stream)
            }));
        }
        for _ in phases {
            passed.acquire_many(all).await?.forget();
            gate.passed().await?;
        }
        Ok(())
    }
}

/// One task for all.
pub(crate) struct Select;

impl Style for Select {
    async fn read<T: Data, S>(streams: Vec<S>, phases: [u64; 2], gate: &mut Gate) -> Result<()>
    where
        S: Stream<Item = Result<T>> + Unpin + Send + 'static,
    {
        let count = streams.len() as u64;
        let mut meter = gate.meter(phases[1] * count);
        let mut all = select_all(streams);
        for events in phases {
            for _ in 0..events * count {
                meter.see(&all.next().await.ok_or("a stream ended early")??);
            }
            meter.hand_in();
            gate.passed().await?;
        }
        Ok(())
    }
}
