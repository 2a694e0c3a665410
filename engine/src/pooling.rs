//! From the states of the tokens to one vector, and how near two vectors are.

/// The mean over the tokens of `states`, `tokens × dim` row-major. Empty when there is no token.
pub fn mean(states: &[f32], dim: usize) -> Vec<f32> {
    let mut tokens = states.chunks_exact(dim.max(1));
    let Some(first) = tokens.next() else { return Vec::new() };
    let mut sum = first.to_vec();
    let mut count = 1.0_f32;
    for token in tokens {
        count += 1.0;
        for (sum, state) in sum.iter_mut().zip(token) {
            *sum += state;
        }
    }
    for sum in &mut sum {
        *sum /= count;
    }
    sum
}

/// The state of the first token of `states`, `tokens × dim` row-major. Empty when there is no token.
pub fn cls(states: &[f32], dim: usize) -> Vec<f32> {
    states.chunks_exact(dim.max(1)).next().unwrap_or_default().to_vec()
}

/// The state of the last token of `states`, `tokens × dim` row-major. Empty when there is no token.
pub fn last(states: &[f32], dim: usize) -> Vec<f32> {
    states.chunks_exact(dim.max(1)).next_back().unwrap_or_default().to_vec()
}

/// Scales `vector` to length 1; a vector of zeros stays as it is.
pub fn normalize(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt();
    if length > 0.0 {
        for number in vector {
            *number /= length;
        }
    }
}

/// The sum of products over the shorter of the two, accumulated in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    wide_dot(a, b) as f32
}

/// The cosine of the angle between two vectors of the same width; NaN when they are not, or one is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::NAN;
    }
    (wide_dot(a, b) / (wide_dot(a, a) * wide_dot(b, b)).sqrt()) as f32
}

fn wide_dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_tokens() {
        assert_eq!(mean(&[1.0, 2.0, 3.0, 6.0], 2), [2.0, 4.0]);
        assert_eq!(mean(&[], 2), Vec::<f32>::new());
    }

    #[test]
    fn the_first_and_the_last_token_are_told_apart() {
        let states = [1.0, 2.0, 3.0, 6.0];
        assert_eq!((cls(&states, 2), last(&states, 2)), (vec![1.0, 2.0], vec![3.0, 6.0]));
        assert_eq!((cls(&[], 2), last(&[], 2)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_normalized_vector_has_length_one() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0; 2];
        normalize(&mut zero);
        assert_eq!(zero, [0.0; 2]);
    }

    #[test]
    fn vectors_that_cannot_be_compared_have_no_cosine() {
        assert_eq!(cosine(&[1.0, 1.0], &[2.0, 2.0]), 1.0);
        assert!(cosine(&[1.0], &[1.0, 1.0]).is_nan());
        assert!(cosine(&[0.0], &[1.0]).is_nan());
        assert!(cosine(&[f32::NAN], &[1.0]).is_nan());
    }
}
