//! The tensors that an architecture has, by today's names, with their shapes.

use super::super::arch::{Arch, Decoder, Order, Projection, Relative, StepKind};
use super::super::families::{At, DecoderNames, Names};

/// The tensors that a model needs, and their shapes.
pub(super) fn expected(arch: &Arch, names: &Names) -> Vec<(String, Vec<usize>)> {
    let (h, wide, attention) = (arch.hidden_size, arch.feed_forward.width, &arch.attention);
    let tables = arch.embeddings.width;
    let (queries, keys) = (arch.query_width(), arch.key_width());
    let mut list = Expected::default();
    list.table(
        &names.encoder(names.word),
        arch.embeddings.vocab_size,
        tables,
    );
    if let Some(position) = arch.embeddings.position {
        list.table(&names.encoder(names.position), position.rows, tables);
    }
    if arch.embeddings.token_types > 0 {
        list.table(
            &names.encoder(names.token_type),
            arch.embeddings.token_types,
            tables,
        );
    }
    let normalised = match arch.embeddings.projection {
        Some(Projection::BeforeNorm) => h,
        _ => tables,
    };
    if arch.embeddings.norm {
        let norm = names.encoder(names.embeddings_norm);
        list.vector(&norm, normalised, arch.norm.bias);
    }
    if let Some(projection) = arch.embeddings.projection {
        let bias = projection == Projection::AfterNorm;
        list.linear(&names.encoder(names.projection), h, tables, bias);
    }
    match &arch.attention.relative {
        Relative::Buckets { rows, .. } => {
            list.table(&names.encoder(names.relative), *rows, attention.heads);
        }
        Relative::Disentangled(relative) => {
            list.table(&names.encoder(names.relative), 2 * relative.span, h);
            if relative.normalised {
                list.vector(&names.encoder(names.relative_norm), h, true);
            }
        }
        Relative::None | Relative::Rotary(_) | Relative::Alibi { .. } => {}
    }
    for i in 0..arch.distinct_layers {
        for (at, outputs) in [
            (names.query, queries),
            (names.key, keys),
            (names.value, keys),
        ] {
            list.part(names, i, at, outputs, h, attention.bias);
        }
        if attention.head_norm {
            for name in [names.query_norm, names.key_norm] {
                list.vector(&names.layer(i, name), attention.head_size, false);
            }
        }
        if let Relative::Disentangled(relative) = &attention.relative
            && !relative.shared
        {
            for (wanted, name) in [
                (relative.content_to_position, names.relative_key),
                (relative.position_to_content, names.relative_query),
            ] {
                if wanted {
                    list.linear(&names.layer(i, name), h, h, true);
                }
            }
        }
        let output = names.layer(i, names.attention_output);
        list.linear(&output, h, queries, attention.output_bias);
        list.part(
            names,
            i,
            names.first(arch.feed_forward.gated),
            wide,
            h,
            arch.feed_forward.bias,
        );
        if arch.feed_forward.gated {
            list.part(names, i, names.up, wide, h, arch.feed_forward.bias);
        }
        let output = names.layer(i, names.output);
        list.linear(&output, h, wide, arch.feed_forward.output_bias);
        if arch.has_attention_norm(i) {
            list.vector(&names.layer(i, names.attention_norm), h, arch.norm.bias);
        }
        list.vector(&names.layer(i, names.output_norm), h, arch.norm.bias);
        if arch.norm.order == Order::Around {
            for name in [names.after_attention, names.after_output] {
                list.vector(&names.layer(i, name), h, arch.norm.bias);
            }
        }
    }
    if arch.has_final_norm() {
        list.vector(&names.encoder(names.final_norm), h, arch.norm.bias);
    }
    if let (Some(decoder), Some(names)) = (arch.head.pooling.decoder(), names.decoder) {
        list.decoder(decoder, names, arch);
    }
    let mut width = h;
    for step in &arch.head.steps {
        match step.kind {
            StepKind::Linear {
                outputs,
                bias,
                residual,
                ..
            } => {
                list.linear(&step.tensor, outputs, width, bias);
                if residual && outputs != width {
                    list.table(&step.residual(), outputs, width);
                }
                width = outputs;
            }
            StepKind::Norm { bias, .. } => list.vector(&step.tensor, width, bias),
            StepKind::Answer { .. } => {
                // Or it is the word embeddings' table.
                if !arch.embeddings.tied {
                    list.table(&step.tensor, arch.embeddings.vocab_size, width);
                }
                width = 1;
            }
            StepKind::Cap(_) | StepKind::Scale(_) => {}
        }
    }
    list.0
}

/// Tensors and their shapes.
#[derive(Default)]
struct Expected(Vec<(String, Vec<usize>)>);

impl Expected {
    fn table(&mut self, name: &str, rows: usize, width: usize) {
        self.0.push((format!("{name}.weight"), vec![rows, width]));
    }

    fn vector(&mut self, name: &str, width: usize, bias: bool) {
        self.0.push((format!("{name}.weight"), vec![width]));
        if bias {
            self.0.push((format!("{name}.bias"), vec![width]));
        }
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) {
        self.0
            .push((format!("{name}.weight"), vec![outputs, inputs]));
        if bias {
            self.0.push((format!("{name}.bias"), vec![outputs]));
        }
    }

    fn decoder(&mut self, decoder: Decoder, names: &DecoderNames, arch: &Arch) {
        let (h, inner, wide) = (
            arch.hidden_size,
            arch.query_width(),
            arch.feed_forward.width,
        );
        for i in 0..decoder.layers {
            let at = |part| names.layer(i, part);
            for norm in [names.own_norm, names.norm, names.output_norm] {
                self.vector(&at(norm), h, false);
            }
            for part in [names.own_value, names.query, names.key, names.value] {
                self.linear(&at(part), inner, h, false);
            }
            for part in [names.own_output, names.attention_output] {
                self.linear(&at(part), h, inner, false);
            }
            for &part in names.wide(arch.feed_forward.gated) {
                self.linear(&at(part), wide, h, false);
            }
            self.linear(&at(names.output), h, wide, false);
        }
        self.vector(names.final_norm, h, false);
    }

    /// A linear layer of which `outputs` outputs are a part; it is listed with its first part.
    fn part(
        &mut self,
        names: &Names,
        layer: usize,
        at: At,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) {
        if at.is_first() {
            self.linear(&names.layer(layer, at.name), at.of * outputs, inputs, bias);
        }
    }
}
