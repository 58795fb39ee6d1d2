//! What the features of one burst cost: 2 channels × 2,560 samples, as a FEMTO-like vibration
//! transmitter sends them every ten seconds. Run: `cargo bench --bench spectrum`.

use std::hint::black_box;
use std::time::Instant;

use wheeltap::analytics::spectrum::{self, BandPass, Transforms};

const TARGET_US: f64 = 150.0;

fn main() {
    let mut random = fastrand::Rng::with_seed(1);
    let channels: Vec<Vec<f64>> =
        (0..2).map(|_| (0..2560).map(|_| random.f64() - 0.5).collect()).collect();
    let transforms = &mut Transforms::default();
    let filter = BandPass::butterworth(4, 0.15, 0.40).expect("a band");
    let mut features = || {
        for samples in &channels {
            let shape = spectrum::time_shape(samples).expect("samples");
            let density = spectrum::welch(transforms, samples, 25_600.0, 512).expect("long enough");
            black_box(spectrum::spectral_shape(&density, 50.0));
            black_box(spectrum::envelope(transforms, &filter.run(samples), 25_600.0));
            black_box(shape);
        }
    };
    features();
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
        let start = Instant::now();
        for _ in 0..50 {
            features();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / 50.0);
    }
    let verdict = if best <= TARGET_US { "met" } else { "missed" };
    println!(
        "features of a burst of 2 x 2,560 samples: {best:.0} us (target <= {TARGET_US} us, {verdict})"
    );
    assert!(best <= 3.0 * TARGET_US, "beyond three times the target");
}
