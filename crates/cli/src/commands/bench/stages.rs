//! Adds up what the pipeline's stages record, for benches: a recorder of the `metrics` crate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use parking_lot::Mutex;

/// Sum in thousandths and number of the values of one histogram.
#[derive(Default)]
struct Total {
    sum_thousandths: AtomicU64,
    count: AtomicU64,
}

impl HistogramFn for Total {
    fn record(&self, value: f64) {
        self.sum_thousandths.fetch_add((value * 1000.0) as u64, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl CounterFn for Total {
    fn increment(&self, value: u64) {
        self.count.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.count.store(value, Ordering::Relaxed);
    }
}

/// What was recorded of one histogram or counter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    /// Sum of the values.
    pub sum: f64,
    /// Number of the values, or the value of the counter.
    pub count: u64,
}

impl Recorded {
    /// The mean; 0 when nothing was recorded.
    pub fn mean(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }
}

#[derive(Default)]
struct StageRecorder {
    totals: Mutex<BTreeMap<String, Arc<Total>>>,
}

static RECORDER: OnceLock<StageRecorder> = OnceLock::new();

impl Recorder for &'static StageRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.total(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.total(key))
    }
}

impl StageRecorder {
    fn total(&self, key: &Key) -> Arc<Total> {
        Arc::clone(self.totals.lock().entry(key.name().to_owned()).or_default())
    }
}

/// Starts to record in this process.
pub fn install() {
    // A second call finds the recorder in place, which is as good.
    let _ = metrics::set_global_recorder(RECORDER.get_or_init(StageRecorder::default));
}

/// Everything recorded since [`install`], by SOFAJRaft's names of histograms and counters.
pub fn recorded() -> BTreeMap<String, Recorded> {
    let Some(recorder) = RECORDER.get() else { return BTreeMap::new() };
    let read = |total: &Total| Recorded {
        sum: total.sum_thousandths.load(Ordering::Relaxed) as f64 / 1000.0,
        count: total.count.load(Ordering::Relaxed),
    };
    recorder.totals.lock().iter().map(|(name, total)| (name.clone(), read(total))).collect()
}

/// What was recorded between `before` and `after`.
pub fn between(
    before: &BTreeMap<String, Recorded>,
    after: &BTreeMap<String, Recorded>,
) -> BTreeMap<String, Recorded> {
    let subtract = |(name, after): (&String, &Recorded)| {
        let before = before.get(name).copied().unwrap_or_default();
        (name.clone(), Recorded { sum: after.sum - before.sum, count: after.count - before.count })
    };
    after.iter().map(subtract).collect()
}
