//! How far a result is from the expected one.

/// As bits.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// From bits.
pub fn floats(x: &[u32]) -> Vec<f32> {
    x.iter().map(|&x| f32::from_bits(x)).collect()
}

/// `sum((a - b)^2) / sum(a^2)`, what is as good as nothing (below 1e-30) taken for zero; 0 where both are zero, infinite where
/// `b` is not finite, or their lengths differ.
pub fn nmse(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() || b.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let exact = |x: f32| if x.abs() < 1e-30 { 0.0 } else { f64::from(x) };
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| (exact(a) - exact(b)).powi(2)).sum();
    let norm = a.iter().map(|&a| exact(a).powi(2)).sum::<f64>();
    if error == 0.0 { 0.0 } else { error / norm }
}

/// The distance from a value to the next f32 away from zero: a unit in its last place. Of what is below the smallest normal
/// number, that number's.
pub fn ulp(x: f64) -> f64 {
    let x = x.abs().clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX));
    // The exponent of an f64 is where it is in its bits.
    let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    f64::powi(2.0, exponent - 23)
}

/// How two vectors differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// [`nmse`].
    pub nmse: f64,
    /// The largest difference, in ULP of the expected value.
    pub worst: f64,
    /// Where it is.
    pub at: usize,
    /// Elements that differ at all.
    pub count: usize,
}

/// How `b` differs from `a`.
pub fn compare(a: &[f32], b: &[f32]) -> Difference {
    let mut all = Difference { nmse: nmse(a, b), ..Difference::default() };
    for (i, (&x, &y)) in a.iter().zip(b).enumerate() {
        let off = if y.is_finite() { (f64::from(x) - f64::from(y)).abs() / ulp(f64::from(x)) } else { f64::INFINITY };
        all.count += usize::from(off > 0.0);
        if off > all.worst {
            (all.worst, all.at) = (off, i);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ulp_is_the_step_to_the_next_number() {
        for x in [1.0f32, 1.5, 2.0, 3e-5, 1e30, 0.999_999_94] {
            let next = f32::from_bits(x.to_bits() + 1);
            assert_eq!(ulp(f64::from(x)), f64::from(next) - f64::from(x), "{x}");
        }
        assert_eq!(ulp(0.0), f64::powi(2.0, -149));
    }

    #[test]
    fn differences_are_measured_where_they_are() {
        let a = [1.0, 2.0, -4.0];
        let d = compare(&a, &[1.0, f32::from_bits(2.0f32.to_bits() + 3), -4.0]);
        assert_eq!((d.worst, d.at, d.count), (3.0, 1, 1));
        assert!(d.nmse > 0.0 && d.nmse < 1e-12);
        assert_eq!(compare(&a, &a), Difference::default());
        assert_eq!(compare(&a, &[1.0, f32::NAN, -4.0]).worst, f64::INFINITY);
        assert_eq!(nmse(&a, &a[..2]), f64::INFINITY);
    }
}
