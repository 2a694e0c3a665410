//! Which instructions this machine has, and one body compiled for each set of them.

/// A set of instructions that this machine is known to have.
///
/// It can only be had from [`Isa::available`] and its kin, which look at the processor: whoever holds one may call
/// functions that are compiled for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

/// What kernels match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernels) enum Level {
    /// What every processor of the architecture has.
    Portable,
    /// AVX2 and FMA: 8 lanes of f32, 16 products of i16 an instruction.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI: 16 lanes of f32, 64 products of bytes an instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// Names of all forms, those that this machine cannot run included.
pub const NAMES: [&str; 3] = ["portable", "avx2", "avx512-vnni"];

impl Isa {
    /// The form without special instructions; slow on x86-64, where a fused product is then a function call.
    pub const fn portable() -> Self {
        Self(Level::Portable)
    }

    /// The forms that this machine can run, slowest first.
    pub fn available() -> Vec<Self> {
        let mut found = vec![Self(Level::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") {
                found.push(Self(Level::Avx2));
                let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq");
                if wide && has!("avx512vl") && has!("avx512vnni") {
                    found.push(Self(Level::Avx512Vnni));
                }
            }
        }
        found
    }

    /// The fastest form that this machine can run.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::portable())
    }

    /// The form called `name` (one of [`NAMES`]), if this machine can run it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// What it is called in logs and tables.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512-vnni",
        }
    }

    pub(in crate::kernels) const fn level(self) -> Level {
        self.0
    }
}

/// Defines a function whose first argument is an [`Isa`], and compiles its body once for each form.
///
/// The body is plain Rust: the compiler vectorises it with what the form has. Rust never reorders or fuses floating
/// point by itself, so that every form gives the same bits.
macro_rules! for_each_isa {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($isa:ident: Isa $(, $arg:ident: $type:ty)* $(,)?) $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name($isa: $crate::kernels::isa::Isa $(, $arg: $type)*) {
            #[inline(always)]
            fn portable($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) {
                portable($($arg),*);
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
            fn avx512($($arg: $type),*) {
                portable($($arg),*);
            }

            match $isa.level() {
                $crate::kernels::isa::Level::Portable => portable($($arg),*),
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
                // SAFETY: an `Isa` of this level exists only where the processor has AVX2 and FMA.
                $crate::kernels::isa::Level::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls a function compiled for more than the baseline")]
                // SAFETY: an `Isa` of this level exists only where the processor has these parts of AVX-512.
                $crate::kernels::isa::Level::Avx512Vnni => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(in crate::kernels) use for_each_isa;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_found_by_its_name_only_where_it_runs() {
        for isa in Isa::available() {
            assert!(NAMES.contains(&isa.name()));
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("avx1024"), None);
        assert_eq!(Isa::available().first(), Some(&Isa::portable()));
        assert_eq!(Isa::available().last(), Some(&Isa::best()));
    }
}
