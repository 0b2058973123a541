//! The vectors of distances that disentangled attention adds, made of a checkpoint once.

use rerankd_kernels::{Buffer, Dtype, Epilogue, RelativePositions, Rows, Scratch};

use super::super::arch::{Disentangled, Relative};
use super::super::error::LoadError;
use super::super::families::At;
use super::Reader;

impl Reader<'_> {
    /// A layer's vectors of distances, if its attention has such: the table of distances, projected.
    pub(super) fn positions(&self, layer: usize) -> Result<Option<RelativePositions>, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let Relative::Disentangled(relative) = &arch.attention.relative else {
            return Ok(None);
        };
        let table = self.distance_table(relative)?;
        let project = |wanted: bool, shared: At, own: &str, factor: f32| {
            let at = match relative.shared {
                true => shared,
                false => At::whole(""),
            };
            let name = match relative.shared {
                true => names.layer(layer, shared.name),
                false => names.layer(layer, own),
            };
            wanted
                .then(|| self.project(&table, (name, at), factor))
                .transpose()
        };
        let (to_position, to_content) =
            (relative.content_to_position, relative.position_to_content);
        let keys = project(to_position, names.key, names.relative_key, 1.0)?;
        let queries = project(to_content, names.query, names.relative_query, arch.scale())?;
        Ok(Some(RelativePositions::new(
            arch.hidden_size,
            arch.attention.heads,
            keys.as_deref(),
            queries.as_deref(),
            &rows(relative, arch.longest),
        )))
    }

    /// `[2 span, hidden size]`
    fn distance_table(&self, relative: &Disentangled) -> Result<Vec<f32>, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let table = self.values(&names.encoder(names.relative), "weight")?;
        if !relative.normalised {
            return Ok(table);
        }
        let norm = names.encoder(names.relative_norm);
        let norm = self.norm(&norm, arch.norm.epsilon, true)?;
        let rows = Rows::new(&table, arch.hidden_size);
        let mut normed = Buffer::default();
        let mut normed = normed.rows(rows.len(), arch.hidden_size);
        self.kernels.layer_norm(&norm, rows, &mut normed);
        Ok((0..rows.len())
            .flat_map(|i| normed.row(i).to_vec())
            .collect())
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
        let mut out = Buffer::default();
        let mut out = out.rows(rows.len(), linear.outputs());
        linear.run(rows, Epilogue::default(), &mut out, &mut Scratch::default());
        Ok((0..rows.len()).flat_map(|i| out.row(i).to_vec()).collect())
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
