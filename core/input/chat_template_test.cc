#include "input/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace sb {
namespace {

std::string read(const std::string& name) {
  std::ifstream file(SB_TESTS "/templates/" + name, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Rendered, or "!" and what went wrong.
std::string render(std::string_view source, const OrderedJson& context = OrderedJson::object()) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed) return "!" + parsed.error().message();
  auto out = parsed->render(context);
  return out ? *out : "!" + out.error().message();
}
OrderedJson json(std::string_view text) { return *json_parse_ordered(text, "test"); }

TEST(ChatTemplate, AgreesWithHuggingFaceJinja) {
  OrderedJson conversations = json(read("conversations.json")), expected = json(read("expected.json"));
  ASSERT_GE(conversations.size(), 25u);
  ASSERT_GE(expected.size(), 15u);
  int n_compared = 0;
  for (auto it = expected.begin(); it != expected.end(); ++it) {
    auto parsed = ChatTemplate::parse(read(it.key()));
    ASSERT_TRUE(parsed) << it.key() << ": " << parsed.error().message();
    for (const OrderedJson& conversation : conversations) {
      std::string name = conversation["name"];
      if (!it->contains(name)) continue;  // make_expected.mjs says why
      ++n_compared;
      const OrderedJson& wanted = (*it)[name];
      OrderedJson context = conversation["context"];
      if (!context.contains("date")) context["date"] = "2024-07-26";
      auto got = parsed->render(context);
      if (wanted.is_object()) {
        EXPECT_FALSE(got) << it.key() << " · " << name << ": " << *got;
      } else {
        ASSERT_TRUE(got) << it.key() << " · " << name << ": " << got.error().message();
        EXPECT_EQ(*got, wanted.get<std::string>()) << it.key() << " · " << name;
      }
    }
  }
  EXPECT_GE(n_compared, 800);
}

// A case that @huggingface/jinja cannot render; the text is Jinja2's.
TEST(ChatTemplate, LlamaBuiltInTools) {
  OrderedJson conversations = json(read("conversations.json"));
  for (OrderedJson& conversation : conversations) {
    if (conversation["name"] != "built-in tools") continue;
    EXPECT_EQ(
        render(read("llama3.1.jinja"), conversation["context"]),
        "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nTools: brave_search\n\nCutting Knowledge Date: December "
        "2023\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nsearch<|eot_id|><|start_header_id|>"
        "assistant<|end_header_id|>\n\n<|python_tag|>brave_search.call(query=\"llamas\")<|eom_id|><|start_header_id|>ipython"
        "<|end_header_id|>\n\n\"found\"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  }
}

struct Case {
  const char* source;
  const char* wanted;
};

// Whitespace control, as Jinja2 3.1 does it under trim_blocks and lstrip_blocks.
TEST(ChatTemplate, Whitespace) {
  const Case cases[] = {
      {"a\n  {{- 1 }}\n  {%+ if true %}x{% endif +%}\n  y {# c #}\n z{% if 1 %}\n\n{% endif %}\n", "a1\n  x\n  y  z\n"},
      {"a {% if 1 -%}  \n b {%- endif %} c", "a b c"},
      {"{{- '  x' -}}  \n y", "  xy"},
      {"x\n{{ 1 }}\ny\n\n", "x\n1\ny\n"},
      {"  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"},
      {"  {#- c -#}\n d\n  {# c #}\ne", "d\ne"},
      {"a\r\n{% if 1 %}\r\nb{% endif %}\r\n", "a\nb"},
      {"{% raw %}{{ a }}{% endraw %}\n{% filter upper %}abc{% endfilter %}", "{{ a }}ABC"},
      {" {%- raw -%} {% x %} {%- endraw -%} b", "{% x %}b"},
      {"{{ {'a': {'b': 1}}['a']['b'] }}}", "1}"},
      {"{{ '}}' }}{{ '%}' }}", "}}%}"},
      {"{", "{"},
      {"{ {", "{ {"},
      {"", ""},
      {"\n", ""},
  };
  for (const Case& c : cases) EXPECT_EQ(render(c.source), c.wanted) << c.source;
}

// Expressions, checked against Jinja2 3.1 where not said otherwise.
TEST(ChatTemplate, Expressions) {
  const Case cases[] = {
      {"{{ 3/2 }}|{{ 4/2 }}|{{ 7//2 }}|{{ 0-7//2 }}|{{ (0-7)//2 }}|{{ (0-7)%3 }}|{{ 2**3 }}|{{ 7.5 % 2 }}", "1.5|2.0|3|-3|-4|2|8|1.5"},
      {"{{ 1 + 2 * 3 - 4 }}|{{ (1 + 2) * 3 }}|{{ -2 ** 2 }}|{{ 1 ~ 2 * 3 }}", "3|9|4|16"},
      {"{{ 1 < 2 < 3 }}|{{ 3 > 2 > 2 }}|{{ 1 == 1.0 }}|{{ true == 1 }}|{{ 'a' < 'b' }}", "True|False|True|True|True"},
      {"{{ not false and true }}|{{ not 'a' in ['b'] }}|{{ 'a' not in 'abc' }}|{{ 1 or x }}|{{ 0 or '' or 'z' }}", "True|True|False|1|z"},
      {"{{ 'a' if x else 'b' }}|{{ 'a' if x }}|{{ 1 if 0 else 2 if 0 else 3 }}", "b||3"},
      {"{{ 'abc'[::-1] }}|{{ 'abc'[1:] }}|{{ 'abc'[-1] }}|{{ [1,2,3][:-1] }}|{{ [1,2,3,4][::2] }}|{{ [1,2][5] }}|{{ [1,2,3][5:0:-1] }}",
       "cba|bc|c|[1, 2]|[1, 3]||[3, 2]"},
      {"{{ 'a🦙c'|length }}|{{ 'a🦙c'[1] }}|{{ 'a🦙c'|reverse }}", "3|🦙|c🦙a"},
      {"{{ 'a' 'b' }}|{{ 'a\\nb\\'' }}|{{ \"\\u00e9\\x41\" }}|{{ 'a\\qb' }}", "ab|a\nb'|éA|a\\qb"},
      {"{{ 1.5 }}|{{ 1e3 }}|{{ 1_000 }}|{{ 0.1 + 0.2 }}|{{ 1.0 }}", "1.5|1000.0|1000|0.30000000000000004|1.0"},
      {"{{ 'a' * 3 }}|{{ [1] + [2] }}|{{ '%s-%d%%' % ('a', 1) }}", "aaa|[1, 2]|a-1%"},
      {"{{ x }}|{{ none }}|{{ true }}|{{ x.y }}|{{ x.y.z }}|{{ none.y }}|{{ x ~ 'a' }}", "||True||||a"},
      {"{{ (1, 2) }}|{{ 1, 2 }}|{{ () }}|{{ (1,) }}", "[1, 2]|[1, 2]|[]|[1]"},
      {"{{ {'a': 1, 'a': 2, 'b': none} }}", "{\"a\": 2, \"b\": null}"},
      {"{{ {'items': 3}.items }}|{{ {'items': 3}.items() | list }}|{{ {'a': 1}.get('b') is none }}|{{ {'a': 1}.get('b', 7) }}",
       "3|[[\"items\", 3]]|True|7"},
      {"{{ [[1, 2], [3]][0].1 }}", "2"},
      {"{{ x is defined }}|{{ x is undefined }}|{{ none is none }}|{{ 'a' is string and 1 is number }}|{{ 1 is divisibleby 3 }}",
       "False|True|True|True|False"},
      {"{{ 'a' is in ['a'] }}|{{ 3 is odd }}|{{ {} is mapping }}|{{ 2 is not even }}|{{ 1 is eq 1 }}|{{ 1 is not none }}",
       "True|True|True|False|True|True"},
      {"{{ x == none }}|{{ x == y }}|{{ x in ['a'] }}|{{ 'a' in x }}|{{ none in [none] }}", "False|True|False|False|True"},
  };
  for (const Case& c : cases) EXPECT_EQ(render(c.source), c.wanted) << c.source;
}

TEST(ChatTemplate, FiltersAndMethods) {
  const Case cases[] = {
      {"{{ [3,1,2]|sort|join(',') }}|{{ [1,1,2]|unique|list }}|{{ ['b','A']|sort }}|{{ ['b','A']|sort(reverse=true) }}",
       "1,2,3|[1, 2]|[\"A\", \"b\"]|[\"b\", \"A\"]"},
      {"{{ 'a,b,c'.split(',', 1) }}|{{ ' a b '.split() }}|{{ 'a.b.c'.rsplit('.', 1) }}",
       "[\"a\", \"b,c\"]|[\"a\", \"b\"]|[\"a.b\", \"c\"]"},
      {"{{ 'Hello wORLD'|title }}|{{ 'hELLO'|capitalize }}|{{ 'x'.upper() }}|{{ 'ÄÖ'|lower }}", "Hello World|Hello|X|äö"},
      {"{{ '\\n\\n x \\n'.strip('\\n') }}|{{ ' x '|trim }}|{{ 'xxaxx'.lstrip('x') }}|{{ '\u3000a\u00a0'|trim }}", " x |x|axx|a"},
      {"{{ 1.5|int }}|{{ '12'|int }}|{{ 'x'|int }}|{{ 'x'|int(7) }}|{{ '1.5'|float }}|{{ 2.5|round }}|{{ 2.567|round(2) }}|{{ (0-3)|abs }}",
       "1|12|0|7|1.5|2.0|2.57|3"},
      {"{{ [{'a':1},{'a':2}]|selectattr('a','equalto',2)|list }}|{{ [{'a':1},{'b':2}]|map(attribute='a', default=0)|list }}",
       "[{\"a\": 2}]|[1, 0]"},
      {"{{ ['a']|map('upper')|list }}|{{ [1,2,3]|select('odd')|list }}|{{ [1,2]|sum }}|{{ [1,2]|max }}|{{ [0,1]|reject|list }}",
       "[\"A\"]|[1, 3]|3|2|[0]"},
      {"{{ {'b':1,'a':2}|dictsort }}|{{ {'a':1}|items }}|{{ {'a':1}|length }}|{{ x|length }}|{{ x|default('d') }}|{{ ''|default('d', true) "
       "}}",
       "[[\"a\", 2], [\"b\", 1]]|[[\"a\", 1]]|1|0|d|d"},
      {"{{ 'aXbX'.replace('X','y',1) }}|{{ 'ab'|replace('', '-') }}|{{ 'a\\nb'|indent }}|{{ 'x'|indent(2, true) }}",
       "aybX|-a-b-|a\n    b|  x"},
      {"{{ 'abc'.startswith(('x','a')) }}|{{ 'abc'.endswith('c') }}|{{ 'abc'.find('c') }}|{{ ','.join(['1','2']) }}", "True|True|2|1,2"},
      {"{{ none|string }}|{{ true|string }}|{{ [true, none]|string }}|{{ none|selectattr('a')|list }}|{{ x|map('upper')|list }}",
       "None|True|[true, null]|[]|[]"},
      {"{{ 'a' | upper ~ 'b' }}|{{ -5|abs }}|{{ [1,2]|first }}|{{ []|last }}", "Ab|5|1|"},
  };
  for (const Case& c : cases) EXPECT_EQ(render(c.source), c.wanted) << c.source;
}

// As transformers gives it to templates: json.dumps(x, ensure_ascii=False), not Jinja2's own tojson with its HTML escapes.
TEST(ChatTemplate, ToJson) {
  OrderedJson context = json(R"({"v": {"b": [1, "é<>&'\"\\\n\u0001", 2.0, 1e20, -0.5, true, null], "a": {}, "c": []}})");
  EXPECT_EQ(render("{{ v|tojson }}", context),
            "{\"b\": [1, \"é<>&'\\\"\\\\\\n\\u0001\", 2.0, 1e+20, -0.5, true, null], \"a\": {}, \"c\": []}");
  EXPECT_EQ(render("{{ v|tojson(indent=2) }}", json(R"({"v": {"a": {"b": [1, "é"]}, "c": [], "d": {}}})")),
            "{\n  \"a\": {\n    \"b\": [\n      1,\n      \"é\"\n    ]\n  },\n  \"c\": [],\n  \"d\": {}\n}");
  EXPECT_EQ(render("{{ {'b': 1, 'a': 'é🦙'}|tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}"),
            "{\"a\":\"\\u00e9\\ud83e\\udd99\",\"b\":1}");
}

TEST(ChatTemplate, Statements) {
  const Case cases[] = {
      {"{% for i in [1,2] %}{{ x is defined }}{% set x = 1 %}{% endfor %}{{ x is defined }}", "FalseFalseFalse"},
      {"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set ns = namespace(x=1) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% endfor %}{{ "
       "ns.x }}",
       "124"},
      {"{% set x %}a{{ 1 }}{% endset %}{{ x|upper }}{% set y | upper %}b{% endset %}{{ y }}", "A1B"},
      {"{% macro m(a, b=2) %}[{{a}}{{b}}{{ caller() if caller }}]{% endmacro %}{{ m(1) }}{% call m(3, b=4) %}in{% endcall %}",
       "[12][34in]"},
      {"{% macro m(a) %}{{ a }}{% if a > 0 %}{{ m(a - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "3210"},
      {"{% macro list() %}{{ caller('x') }}{% endmacro %}{% call(y) list() %}<{{ y }}>{% endcall %}", "<x>"},
      {"{% for a in [1,2,3] if a > 1 %}{{ loop.index }}{{ loop.length }}{{ loop.previtem }}{{ loop.last }};{% endfor %}",
       "12False;222True;"},
      {"{% for k, v in {'a':1,'b':2}.items() %}{{k}}{{v}}{{ loop.revindex }}{% else %}e{% endfor %}", "a12b21"},
      {"{% for a in x %}1{% else %}none{% endfor %}{% for c in 'ab' %}{{ c }}.{% endfor %}", "nonea.b."},
      {"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "023"},
      {"{% for i in range(2) %}{% for j in range(2) %}{{ loop.index }}{% endfor %}{{ loop.index }}{{ loop.cycle('a','b') }}{% endfor %}",
       "121a122b"},
      {"{% generation %}x{% endgeneration %}", "x"},
      {"{{ dict(a=1) }}{{ range(3) }}{{ range(4, 0, -2) }}", "{\"a\": 1}[0, 1, 2][4, 2]"},
      {"{% set n = namespace() %}{% set n.me = n %}{{ n.me.me is defined }}", "True"},
  };
  for (const Case& c : cases) EXPECT_EQ(render(c.source), c.wanted) << c.source;
}

TEST(ChatTemplate, DateIsTheContexts) {
  const char* source =
      "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y %A %B %-d %H:%M:%S %j %y %p %I %%') }}{% else %}no date{% endif %}";
  EXPECT_EQ(render(source), "no date");
  EXPECT_EQ(render(source, json(R"({"date": "2024-07-06"})")), "06 Jul 2024 Saturday July 6 00:00:00 188 24 AM 12 %");
  EXPECT_EQ(render(source, json(R"({"date": "2026-12-31T23:05:09Z"})")), "31 Dec 2026 Thursday December 31 23:05:09 365 26 PM 11 %");
  EXPECT_EQ(render(source, json(R"({"date": "tomorrow"})")), "no date");
}

TEST(ChatTemplate, SaysWhatIsWrong) {
  const Case cases[] = {
      {"a\n{{ x | nosuch }}", "!The chat template breaks at line 2: there is no filter nosuch here"},
      {"{{ 1 is nosuch }}", "!The chat template breaks at line 1: there is no test nosuch here"},
      {"{% include 'x' %}", "!The chat template breaks at line 1: there is no statement {% include %} here"},
      {"\n{% if x %}\n", "!The chat template breaks at line 2: {% endif %} is missing"},
      {"{% for x in y %}{% endif %}", "!The chat template breaks at line 1: there is no statement {% endif %} here"},
      {"{% endfor %}", "!The chat template breaks at line 1: unexpected {% endfor %}"},
      {"{% break %}", "!The chat template breaks at line 1: {% break %} outside a loop"},
      {"{{ 1 ", "!The chat template breaks at line 1: a tag is not closed by }}"},
      {"{# x", "!The chat template breaks at line 1: a comment {# is not closed"},
      {"{{ 'x }}", "!The chat template breaks at line 1: a text is not closed"},
      {"{{ (1 }}", "!The chat template breaks at line 1: unexpected }"},
      {"{{ }}", "!The chat template breaks at line 1: expected a value, found }}"},
      {"{{ a b }}", "!The chat template breaks at line 1: expected }}, found b"},
      {"{{ 'a' + x['content'] }}", "!The chat template breaks at line 1: cannot combine a text with an undefined value (content)"},
      {"{{ 1 // 0 }}", "!The chat template breaks at line 1: a division by zero"},
      {"{{ x() }}", "!The chat template breaks at line 1: x, an undefined value, cannot be called"},
      {"{{ none | trim }}", "!The chat template breaks at line 1: trim does not take none"},
      {"{{ [1, 'a'] | sort }}", "!The chat template breaks at line 1: there is no order between a whole number and a text"},
      {"{{ raise_exception('only users') }}", "!The chat template refuses these messages: only users"},
  };
  for (const Case& c : cases) EXPECT_EQ(render(c.source), c.wanted) << c.source;
  auto raised = ChatTemplate::parse("{{ raise_exception('x') }}")->render(OrderedJson::object());
  EXPECT_EQ(raised.error().code(), Code::kTemplateRaised);
}

std::string repeated(std::string_view part, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += part;
  return out;
}

// Each ends soon, with an error: no crash, no hang, no memory gone.
TEST(ChatTemplate, HostileTemplatesEnd) {
  const std::string sources[] = {
      "{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}",
      "{{ " + repeated("[", 100000) + " }}",
      "{{ " + repeated("not ", 100000) + "1 }}",
      "{{ " + repeated("- ", 100000) + "1 }}",
      "{{ 1" + repeated(" + 1", 100000) + " }}",
      "{{ 1" + repeated("|abs", 100000) + " }}",
      "{{ x" + repeated(".a", 100000) + " }}",
      "{{ 1" + repeated(" if 1 else 1", 100000) + " }}",
      repeated("{% if 1 %}", 100000),
      repeated("{% for a in b %}", 100000),
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
      "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
      "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
      "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
      "{{ range(1000000000) }}",
      "{{ 'x' * 1000000000 }}",
      "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(100) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
      "{% set n = namespace(s=[1]) %}{% for i in range(100) %}{% set n.s = n.s + n.s %}{% endfor %}",
      "{% set n = namespace(s=[1]) %}{% for i in range(100) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
      "{% set n = namespace(s=[1], t=[1]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s "
      "== n.t }}",
      "{% set n = namespace() %}{% set n.n = n %}{{ n|tojson }}",
      "{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}",
      "{{ 'a' | replace('', 'x' * 1000000) | replace('', 'x' * 1000000) | replace('', 'x' * 1000000) }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ 10 ** 400 }}",
      "{{ 999999999999999999 * 999999999999999999 }}",
      "{{ (0 - 999999999999999999 * 9 - 223372036854775817) // (0 - 1) }}",
      "{{ ['map']|map('map', 'map') }}",
      "{{ range(99999)|list|tojson(indent=64)|replace(' ', 'xxxxxxxxxxxxxxxxxxxxxxxxx') }}",
  };
  for (const std::string& source : sources) {
    EXPECT_TRUE(render(source).starts_with("!")) << source.substr(0, 100) << " -> " << render(source).substr(0, 100);
  }
  OrderedJson deep = json(repeated("[", 5000) + repeated("]", 5000));
  EXPECT_TRUE(render("{{ x }}", {{"x", deep}}).starts_with("!"));
  EXPECT_EQ(render("{{ y }}", {{"x", deep}}), "");
  EXPECT_EQ(render("\xff{{ '\xc3' ~ '\xe2\x82' }}{{ '\xf0\x9f'|length }}{{ '\xff'|upper }}{{ '\x80 '|trim }}"),
            "\xff\xc3\xe2\x82\x32\xff\x80");
}

// A template that is cut anywhere parses or refuses; one that parses renders or refuses.
TEST(ChatTemplate, CutAnywhere) {
  OrderedJson conversations = json(read("conversations.json"));
  for (const char* name : {"qwen3.jinja", "llama3.1.jinja", "mistral_v3.jinja"}) {
    std::string source = read(name);
    for (size_t n = 0; n < source.size(); n += 7) render(std::string_view(source).substr(0, n), conversations[26]["context"]);
  }
}

}  // namespace
}  // namespace sb
