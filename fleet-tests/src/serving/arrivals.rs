//! When requests are sent, whatever became of those before: a Poisson process.

use std::time::Duration;

use fastrand::Rng;

/// The times of arrivals at `per_second` on average, over `length`, from its start on. The distances between them are
/// independent and exponentially distributed.
pub fn poisson(per_second: f64, length: Duration, random: &mut Rng) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut at = 0.0;
    if per_second <= 0.0 {
        return times;
    }
    loop {
        // 1 − [0, 1) is never zero.
        at -= (1.0 - random.f64()).ln() / per_second;
        if at >= length.as_secs_f64() {
            return times;
        }
        times.push(Duration::from_secs_f64(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_their_rate_and_bunch_as_poisson_does() {
        let times = poisson(200.0, Duration::from_secs(100), &mut Rng::with_seed(3));
        assert!((19_500..20_500).contains(&times.len()), "{}", times.len());
        assert!(times.is_sorted());
        // The number in a tenth of a second has the variance of its mean, 20.
        let mut counts = vec![0.0_f64; 1_000];
        for time in times {
            counts[(time.as_secs_f64() * 10.0) as usize] += 1.0;
        }
        let variance = counts.iter().map(|count| (count - 20.0).powi(2)).sum::<f64>() / 1_000.0;
        assert!((17.0..23.0).contains(&variance), "{variance}");
    }

    #[test]
    fn no_rate_is_no_arrivals() {
        assert!(poisson(0.0, Duration::from_secs(1), &mut Rng::with_seed(1)).is_empty());
    }
}
