//! The vectors of distances that disentangled attention adds, made of a checkpoint once.

use rerankd_kernels::{Dtype, Epilogue, RelativePositions, Rows, RowsMut, Scratch};

use super::super::arch::{Disentangled, Relative};
use super::super::error::LoadError;
use super::super::families::At;
use super::Reader;

impl Reader<'_> {
    /// A layer's vectors of distances, if its attention has such: the `table` of distances, `[2 span, hidden size]`,
    /// projected.
    pub(super) fn positions(
        &self,
        layer: usize,
        table: &[f32],
    ) -> Result<Option<RelativePositions>, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let Relative::Disentangled(relative) = &arch.attention.relative else {
            return Ok(None);
        };
        let project = |wanted: bool, shared: At, own: &'static str, factor: f32| {
            let at = match relative.shared {
                true => shared,
                false => At::whole(own),
            };
            let layer = (names.layer(layer, at.name), at);
            wanted
                .then(|| self.project(table, layer, factor))
                .transpose()
        };
        let keys = project(
            relative.content_to_position,
            names.key,
            names.relative_key,
            1.0,
        )?;
        let queries = project(
            relative.position_to_content,
            names.query,
            names.relative_query,
            arch.scale(),
        )?;
        Ok(Some(RelativePositions::new(
            arch.hidden_size,
            arch.attention.heads,
            keys.as_deref(),
            queries.as_deref(),
            &rows(relative, arch.longest),
        )))
    }

    /// `[2 span, hidden size]`: the embeddings of distances, normalised if they are to be; empty if there are none.
    pub(super) fn distance_table(&self) -> Result<Vec<f32>, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let Relative::Disentangled(relative) = &arch.attention.relative else {
            return Ok(Vec::new());
        };
        let table = self.values(&names.encoder(names.relative), "weight")?;
        if !relative.normalised {
            return Ok(table);
        }
        let norm = self.norm_of_encoder(&names.encoder(names.relative_norm))?;
        let rows = Rows::new(&table, arch.hidden_size);
        let mut normed = vec![0.0; table.len()];
        let mut to = RowsMut::new(&mut normed, arch.hidden_size);
        self.kernels.layer_norm(&norm, rows, &mut to);
        Ok(normed)
    }

    /// The table through a linear layer, in full precision whatever the weights are kept in.
    fn project(
        &self,
        table: &[f32],
        layer: (String, At),
        factor: f32,
    ) -> Result<Vec<f32>, LoadError> {
        let how = super::As {
            factor,
            ..self.plain(Dtype::F32, true)
        };
        let linear = self.linear(&[layer], how)?;
        let rows = Rows::new(table, self.described.arch.hidden_size);
        let mut projected = vec![0.0; rows.len() * linear.outputs()];
        let mut out = RowsMut::new(&mut projected, linear.outputs());
        linear.run(rows, Epilogue::default(), &mut out, &mut Scratch::default());
        Ok(projected)
    }
}

/// The table's row of each distance between a query and a key, from `-(longest - 1)` on.
fn rows(relative: &Disentangled, longest: usize) -> Vec<u16> {
    let farthest = longest as i32 - 1;
    let span = relative.span as i32;
    let row = |distance: i32| {
        let bucket = match relative.farthest {
            Some(farthest) => bucket(distance, relative.span, farthest),
            None => distance,
        };
        (bucket + span).clamp(0, 2 * span - 1) as u16
    };
    (-farthest..=farthest).map(row).collect()
}

/// Distances up to half of the span are their own buckets; those of the other half grow as e to their number, up to
/// `farthest` (He et al., 2021, <https://arxiv.org/abs/2111.09543>, in f32 as transformers computes it).
fn bucket(distance: i32, span: usize, farthest: usize) -> i32 {
    let middle = (span / 2) as i32;
    if distance.abs() <= middle {
        return distance;
    }
    let share = (distance.abs() as f32 / middle as f32).ln();
    let whole = ((farthest as f64 - 1.0) / f64::from(middle)) as f32;
    let bucket = (share / whole.ln() * (middle - 1) as f32).ceil() as i32 + middle;
    bucket * distance.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_with_the_distance() {
        // As transformers' make_log_bucket_position(d, 256, 512).
        for (distance, expected) in [
            (0, 0),
            (-5, -5),
            (128, 128),
            (129, 129),
            (200, 169),
            (-511, -255),
            (511, 255),
        ] {
            assert_eq!(bucket(distance, 256, 512), expected, "{distance}");
        }
    }
}
