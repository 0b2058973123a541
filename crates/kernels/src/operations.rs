//! What is done to rows by the kernels of an instruction set: checked here, so that it is safe to call.

use super::{
    Activation, Bias, Dtype, Kernels, KeyValues, LayerNorm, Places, Rotary, Rows, RowsMut, Scratch,
    attention, elementwise,
};

impl Kernels {
    /// Softmax attention of one head of one sequence: each query's mean of the values, weighted by e to
    /// its score with each of the keys, which is their product and what `places` adds. The scale is
    /// in the queries already.
    ///
    /// `queries` and `output` are `[queries, head size]`; the queries are those of some tokens, one after the
    /// other from `places.first` on. The tokens that are seen are those of `prefix`, which other sequences may begin
    /// with too, then its `own`; some that follow may see and not be seen.
    ///
    /// Products are in bfloat16 if the CPU multiplies it and the model's `dtype` is that, or int8, whose own rounding is
    /// far coarser; but for those with vectors of distances. Else they are in f32.
    ///
    /// # Panics
    /// If the shapes do not fit, there is no key, or `places` has no bias for a pair that it lets see each other.
    pub fn attention(
        self,
        dtype: Dtype,
        queries: Rows<'_>,
        [prefix, own]: [KeyValues<'_>; 2],
        places: Places<'_>,
        output: &mut RowsMut<'_>,
        scratch: &mut Scratch,
    ) {
        let size = queries.width();
        let parts = [prefix.keys, prefix.values, own.keys, own.values];
        let [before, values_before, rest, values] = parts.map(|rows| rows.len());
        assert!(
            queries.len() == output.len() && before == values_before && rest == values,
            "{} queries, {} outputs, {before} and {rest} keys, {values_before} and {values} values",
            queries.len(),
            output.len(),
        );
        assert!(
            output.width() == size && parts.iter().all(|rows| rows.width() == size),
            "the heads have different sizes"
        );
        if queries.is_empty() {
            return;
        }
        assert!(before + rest > 0, "no keys");
        places.check(queries.len(), before + rest, size);
        let parts = |prefix: Rows<'_>, rest: Rows<'_>| attention::Parts {
            prefix: prefix.raw(),
            before,
            rest: rest.raw(),
        };
        let call = attention::Call {
            queries: queries.raw(),
            keys: parts(prefix.keys, own.keys),
            values: parts(prefix.values, own.values),
            output: output.raw(),
            answers: queries.len(),
            length: before + rest,
            head_size: size,
            places,
        };
        let attention = match (dtype, places.bias, self.0.bf16) {
            (_, Bias::Disentangled(_), _) => self.0.attention,
            (Dtype::Bf16 | Dtype::Int8, _, Some(bf16)) => bf16.attention,
            _ => self.0.attention,
        };
        // SAFETY: this CPU has the instructions, or there would be no such Kernels; the shapes have
        // been checked, and the output is borrowed for us alone.
        unsafe { attention(&call, &mut scratch.attention) }
    }

    /// Writes the normalised rows of `from` to `to`, both `[rows, width]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn layer_norm(self, norm: &LayerNorm, from: Rows<'_>, to: &mut RowsMut<'_>) {
        assert!(
            from.len() == to.len() && [from.width(), to.width()] == [norm.width(); 2],
            "{}x{} to {}x{}, normalised at {}",
            from.len(),
            from.width(),
            to.len(),
            to.width(),
            norm.width()
        );
        // SAFETY: as attention.
        unsafe { (self.0.layer_norm)(norm, from, to) }
    }

    /// Normalises each head of `heads`, `[tokens, heads * norm's width]`, by itself, in place.
    ///
    /// # Panics
    /// If a row is not some whole heads.
    pub fn normalise_heads(self, norm: &LayerNorm, heads: &mut RowsMut<'_>) {
        assert!(
            heads.width().is_multiple_of(norm.width()),
            "rows of {} values, heads of {}",
            heads.width(),
            norm.width()
        );
        // SAFETY: as attention.
        unsafe { (self.0.normalise_heads)(norm, heads) }
    }

    /// Applies an activation to all values in place.
    pub fn activate(self, activation: Activation, rows: &mut RowsMut<'_>) {
        // SAFETY: as attention.
        unsafe { (self.0.activate)(activation, rows) }
    }

    /// Rotates each head of `heads`, `[tokens, heads * head size]`, in place; token `i` stands at
    /// `places[i]`.
    ///
    /// # Panics
    /// If the shapes do not fit, or a token stands where the tables do not reach.
    pub fn rotate(self, rotary: &Rotary, places: &[u32], mut heads: RowsMut<'_>) {
        rotary.check(places, &heads);
        // SAFETY: as attention.
        unsafe { (self.0.rotate)(rotary, places, &mut heads) }
    }

    /// Writes the mean of `rows`, `[rows, width]`, to `out`, `[width]`.
    ///
    /// # Panics
    /// If there is no row, or `out` is not as long as a row.
    pub fn mean(self, rows: Rows<'_>, out: &mut [f32]) {
        assert!(
            !rows.is_empty() && rows.width() == out.len(),
            "the mean of {}x{} to {}",
            rows.len(),
            rows.width(),
            out.len()
        );
        elementwise::mean(rows, out);
    }
}
