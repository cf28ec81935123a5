//! A queue consumer under load: the messages of many producers, each with data keys of its own, are opened through
//! the cache, with a call to the key service for each data key and not for each message.
//!
//! Then the key service stops answering. With offline grace the consumer goes on with the data keys that it has,
//! though their time is over; what it has no data key for goes back into the queue until the service answers again.
//!
//! `cargo run --example queue_consumer`

use envelock::blocking::Envelope;
use envelock::{
    CacheLimits, DataKey, DataKeyAnswer, DataKeyCache, DataKeyLength, EncryptedDataKey, EncryptionContext, Error,
    ErrorKind, GeneratedDataKey, KeyProvider, KmsContext, RawKeyProvider, Recipient, Result, async_trait,
};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PRODUCERS: usize = 20;
/// Of each producer, before the outage and during it.
const MESSAGES: usize = 500;
const CONSUMERS: usize = 4;
const MAX_AGE: Duration = Duration::from_secs(2);

/// Stands for a key service in the network: it takes its time, counts its calls, and may be out of reach.
#[derive(Debug)]
struct KeyService {
    key: RawKeyProvider,
    calls: AtomicUsize,
    down: AtomicBool,
}

impl KeyService {
    fn answer(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        match self.down.load(Ordering::SeqCst) {
            // Only this kind says that the service may answer otherwise later, and lets a grace begin.
            true => Err(Error::new(ErrorKind::Unavailable, "the key service does not answer")),
            false => Ok(()),
        }
    }

    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl KeyProvider for KeyService {
    fn recipients(&self) -> Vec<Recipient> {
        self.key.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.answer()?;
        self.key.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.answer()?;
        self.key.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        match self.answer() {
            Ok(()) => self.key.decrypt_data_key(slot, context).await,
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("queue", "orders")])
}

/// In reality each producer is a process, so each has an envelope and a cache of its own.
fn producer(service: &Arc<KeyService>) -> Result<Envelope> {
    let service: Arc<dyn KeyProvider> = Arc::clone(service) as _;
    Ok(Envelope::new(envelock::Envelope::builder(service).cache(CacheLimits::default()).build()?))
}

#[derive(Default)]
struct Queue(Mutex<VecDeque<Vec<u8>>>);

impl Queue {
    fn push(&self, message: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
    }

    fn pop(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// What the consumers got done.
#[derive(Default)]
struct Done {
    handled: AtomicUsize,
    put_back: AtomicUsize,
}

/// One consumer, until all have handled `count` messages.
fn consume(queue: &Queue, envelope: &Envelope, done: &Done, count: usize) -> Result<()> {
    while done.handled.load(Ordering::SeqCst) < count {
        let Some(sealed) = queue.pop() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        match envelope.decrypt(&sealed, &context()) {
            Ok(message) => {
                assert!(message.starts_with(b"order "));
                done.handled.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) if error.is_retryable() => {
                done.put_back.fetch_add(1, Ordering::SeqCst);
                queue.push(sealed);
                std::thread::sleep(Duration::from_millis(20));
            }
            // Not authentic, or of another queue: it will never be otherwise, and goes to whoever looks into it.
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let key = RawKeyProvider::generate("orders")?;
    let service = Arc::new(KeyService { key, calls: AtomicUsize::new(0), down: AtomicBool::new(false) });
    let limits = CacheLimits::default().max_age(MAX_AGE).offline_grace(Duration::from_secs(3_600));
    let cache = DataKeyCache::new(limits)?;
    let keys: Arc<dyn KeyProvider> = Arc::clone(&service) as _;
    let envelope = Envelope::new(envelock::Envelope::builder(keys).shared_cache(&cache).build()?);
    let (queue, done) = (Queue::default(), Done::default());

    // Producers and consumers at once.
    let producers = (0..PRODUCERS).map(|_| producer(&service)).collect::<Result<Vec<_>>>()?;
    let all = PRODUCERS * MESSAGES;
    std::thread::scope(|scope| {
        let (queue, envelope, done) = (&queue, &envelope, &done);
        let producing = producers.iter().map(|producer| {
            scope.spawn(move || {
                for order in 0..MESSAGES {
                    queue.push(producer.encrypt(format!("order {order}").as_bytes(), &context())?);
                }
                Ok(())
            })
        });
        let producing: Vec<_> = producing.collect();
        let consuming: Vec<_> =
            (0..CONSUMERS).map(|_| scope.spawn(move || consume(queue, envelope, done, all))).collect();
        producing.into_iter().chain(consuming).try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    let calls = service.calls();
    println!("{all} messages of {PRODUCERS} producers: {calls} calls to the key service, from both sides");
    // One of each producer, one of the consumers for each: a few more where the machine was slow.
    assert!((2 * PRODUCERS..all / 100).contains(&calls));

    // More messages are under way, one of them of a producer whose data key no consumer has seen, when the
    // service stops answering.
    for order in 0..all {
        queue.push(producers[order % PRODUCERS].encrypt(format!("order {order}").as_bytes(), &context())?);
    }
    queue.push(producer(&service)?.encrypt(b"order of a newcomer", &context())?);
    service.down.store(true, Ordering::SeqCst);
    std::thread::sleep(MAX_AGE + Duration::from_millis(100));
    service.calls();
    std::thread::scope(|scope| {
        let (queue, envelope, done) = (&queue, &envelope, &done);
        let consuming: Vec<_> =
            (0..CONSUMERS).map(|_| scope.spawn(move || consume(queue, envelope, done, 2 * all + 1))).collect();
        let early = || done.handled.load(Ordering::SeqCst) < 2 * all || done.put_back.load(Ordering::SeqCst) == 0;
        while early() && consuming.iter().all(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let graces: u64 = cache.statistics().iter().map(|of| of.decrypt.graces).sum();
        println!("{all} messages during the outage: {graces} data keys served past their age");
        println!("{} attempts on the newcomer's message were put back", done.put_back.load(Ordering::SeqCst));
        assert!(graces > 0 && done.put_back.load(Ordering::SeqCst) > 0);
        service.down.store(false, Ordering::SeqCst);
        consuming.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    println!("the key service answers again, and the queue is empty; {} calls meanwhile", service.calls());
    assert_eq!(done.handled.load(Ordering::SeqCst), 2 * all + 1);
    Ok(())
}
