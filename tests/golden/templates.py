"""Writes templates.json: chat templates of the kinds that rerankers come with, and what transformers makes of them.

    .venv/bin/python tests/golden/templates.py

Each template is rendered for each conversation; null is a template that refuses. The templates are written for this
test: between them they use what published ones use of Jinja.
"""

import json
from pathlib import Path

import jinja2
import transformers
from transformers.utils.chat_template_utils import render_jinja_template

QUERY, DOCUMENT = "is it so?\n", "  It isn't;\n\n\"no\" <b>&</b> {{ 1 + 1 }} река 🌊<|im_end|> "


def by(role):
    return f'messages | selectattr("role", "eq", "{role}") | map(attribute="content")'


TEMPLATES = {
    "set-and-default": (
        "{%- set asked = " + by("system") + ' | first | default("Is it?") -%}\n'
        "{%- set query = " + by("query") + " | first -%}\n"
        "<s>{{ asked }}\n<q>{{ query }}\n<d>{{ " + by("document") + " | first }}\n\n\n"
    ),
    "over-lines": (
        "<q>{{\n    messages\n    | selectattr(\"role\", \"equalto\", \"query\")\n    | map(attribute='content')\n"
        "    | first\n}}|{{ (messages | selectattr('role', '==', 'document') | first).content }}\n"
    ),
    "list-and-if": (
        "{%- set told = (messages | selectattr('role', 'eq', 'system') | list) -%}\n"
        "{% if told %}\nI: {{ told[0]['content'] }}\n{% elif told | length == 0 %}\nnone\n{% endif %}\n"
        "{% set ask = messages | rejectattr('role', 'in', ['system', 'document']) | list | last %}\n"
        "Q: {{ ask.content | trim }}\nD: {{ messages[-1]['content'].strip() }}"
    ),
    "loop": (
        "{{- bos_token }}\n"
        "{% for message in messages %}\n"
        "    {% if loop.first and message['role'] != 'system' %}\n"
        "        {{- '<|im_start|>system\\nYou judge.<|im_end|>\\n' }}\n"
        "    {% endif %}\n"
        "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
        "    {%- if loop.last %}{{ '<|im_start|>assistant\\n' }}{% endif %}\n"
        "{% endfor %}\n"
    ),
    "namespace-and-macro": (
        "{%- macro turn(role, text) -%}\n[{{ role | upper }}] {{ text | replace('\\n', ' ') }}\n{%- endmacro -%}\n"
        "{%- set ns = namespace(n=0, last='') -%}\n"
        "{%- for message in messages -%}\n"
        "{%- set ns.n = ns.n + 1 -%}{%- set ns.last = message.role -%}\n"
        "{{ turn(message.role, message.content) ~ ' #' ~ ns.n }}\n"
        "{% endfor -%}\n"
        "{{ ns.last }}{{ eos_token }}{# a remark #}"
    ),
    "parts": (
        "{%- for message in messages -%}\n"
        "{%- if message.content is string -%}{{ message.role }}={{ message.content }};\n"
        "{%- else -%}{%- for part in message.content if part.type == 'text' -%}{{ message.role }}:{{ part.text }};"
        "{%- endfor -%}{%- endif -%}{%- endfor -%}"
    ),
    "tests-and-filters": (
        "{% if tools is defined and tools is not none %}tools{% else %}no tools{% endif %} "
        "{{ 'yes' if add_generation_prompt else 'no' }} {{ undefined_name | default('blank') }}{{ nothing }}"
        "{{ messages | length }} {{ messages | map(attribute='role') | join(',') }} "
        "{{ messages[0] | tojson }} {{ 'role' in messages[0] }} {{ messages[0].get('name', 'unnamed') }} "
        "{{ messages[-1].content.split('\\n')[0] }} {{ messages[-1].content[:4] }} {{ 7 // 2 }} {{ 'a' * 3 }}"
    ),
    "refuses": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ messages[0].content.startswith('is') }} {{ messages[0].content.rstrip() }}"
    ),
    "generation": (
        "{% for message in messages %}\n{{ message.role }}:\n  {%- generation %}\n {{ message.content }}\n"
        "  {%- endgeneration -%}\n ;\n{% endfor %}\n{% generation %}\nyes{% endgeneration %}"
    ),
    "controls": (
        "{% for message in messages %}{% if message.role == 'document' %}{% break %}{% endif %}"
        "{% if message.role == 'system' %}{% continue %}{% endif %}{{ message.content }}{% endfor %}end"
    ),
}


def conversations(parts=True):
    """Whose texts are plain, and then those whose texts are lists of parts."""
    pair = [dict(role="query", content=QUERY), dict(role="document", content=DOCUMENT)]
    told = dict(role="system", content="Find rivers.")
    plain = [pair, [told, *pair], [dict(role="query", content=""), dict(role="document", content="")]]
    in_parts = [
        [dict(role=turn["role"], content=[dict(type="text", text=turn["content"])]) for turn in turns]
        for turns in plain[:2]
    ]
    return plain + in_parts * parts


def render(template, messages):
    try:
        return render_jinja_template(
            [messages], chat_template=template, bos_token="<s>", eos_token="</s>", add_generation_prompt=False
        )[0][0]
    except (jinja2.TemplateError, TypeError, AttributeError):
        return None


def main():
    written = [
        dict(name=name, template=template,
             rendered=[render(template, messages) for messages in conversations(parts=name == "parts")])
        for name, template in TEMPLATES.items()
    ]
    for case in written:
        assert any(case["rendered"]), case["name"]
    made = dict(
        about="chat templates, and what each makes of each conversation with bos_token <s> and eos_token </s>; null "
        "where it refuses. Lists of parts are tried with one template alone",
        reference=dict(transformers=transformers.__version__, jinja2=jinja2.__version__),
        conversations=conversations(), templates=written,
    )
    path = Path(__file__).parent / "templates.json"
    path.write_text(json.dumps(made, ensure_ascii=True, indent=1) + "\n")


if __name__ == "__main__":
    main()
