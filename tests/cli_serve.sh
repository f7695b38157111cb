#!/bin/sh
# 'sluice serve' with curl, on the demo model: every API's form, what is wrong
# with requests, who may ask, and the same texts and chances as the other
# commands have.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-serve-XXXXXX") || exit 99
pid=
# shellcheck disable=SC2086 # none is no word
trap 'kill $pid 2>/dev/null; rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
if ! command -v curl >/dev/null; then
    echo "1..0 # SKIP there is no curl"
    exit 0
fi
if "$sluice" serve -m "$work/none" 2>&1 | grep -q 'built without a server'; then
    echo "1..0 # SKIP this sluice was built without a server"
    exit 0
fi
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

# start OPTION...: a server at a free port; sets pid and url.
start()
{
    "$sluice" serve -m "$model" --ram 192M --threads 2 --port 0 "$@" \
        >"$work/out" 2>"$work/log" &
    pid=$!
    for _ in $(seq 100); do
        url=$(sed -n 's/.*listening at //p' "$work/log")
        if [ -n "$url" ] && [ "$(curl -ks -o "$work/got" -w '%{http_code}' \
            "$url/health")" = 200 ]; then
            return 0
        fi
        kill -0 $pid 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# stop: ends it by SIGTERM; its exit code.
stop()
{
    kill $pid
    wait $pid
    rc=$?
    pid=
    return $rc
}

# ask PATH [JSON] [CURL OPTION...]: the answer in $work/got, its status in
# $status.
ask()
{
    path=$1
    shift
    if [ $# -gt 0 ]; then
        json=$1
        shift
        status=$(printf '%s' "$json" | curl -ks -o "$work/got" \
            -w '%{http_code}' --data-binary @- "$@" "$url$path")
    else
        status=$(curl -ks -o "$work/got" -w '%{http_code}' "$url$path")
    fi
}

# The texts of an answer's choices, a line each, newlines as \n.
texts()
{
    grep -o '"text":"[^"]*"' "$work/got" | sed 's/^"text":"//; s/"$//'
}

start --keep-prompts "$work/prompts"
check a_server_starts_and_is_healthy

wrong=
# refused STATUS WHAT: the last answer is an error in OpenAI's form that says
# WHAT.
refused()
{
    [ "$status" = "$1" ] && grep -qF '{"error":{"message":"' "$work/got" &&
        grep -qF -- "$2" "$work/got" || wrong="$wrong
wanted $1 $2, got $status $(head -c 400 "$work/got")"
}
verdict()
{
    [ -z "$wrong" ] || echo "$wrong" >"$work/err"
    [ -z "$wrong" ]
    check "$1"
    rm -f "$work/err"
    wrong=
}

"$sluice" serve --openapi >"$work/described" &&
    ask /openapi.json && tr -d ' \n' <"$work/described" >"$work/wanted" &&
    tr -d ' \n' <"$work/got" | cmp - "$work/wanted" &&
    grep -q '"openapi": "3.1.0"' "$work/described" &&
    grep -q '"/v1/responses/{id}/cancel": {' "$work/described" &&
    grep -q '"max_completion_tokens": {' "$work/described"
check it_describes_itself
ask /nothing
refused 404 'there is nothing at /nothing'
ask /health '{}'
refused 405 'POST is not for this path'
ask /v1/completions ''
refused 400 'no body'
ask /v1/completions '{"prompt":'
refused 400 'is no JSON: line 1'
ask /v1/completions '[]'
refused 400 'a JSON object is expected'
ask /v1/completions '{"prompt":"a","prompt":"b"}'
refused 400 'duplicate'
ask /v1/completions '{}'
refused 400 '"param":"prompt"'
ask /v1/completions '{"prompt":"a","max_tokens":-1}'
refused 400 '"param":"max_tokens"'
ask /v1/completions '{"prompt":"a","max_tokens":"many"}'
refused 400 "'max_tokens' is"
ask /v1/completions '{"prompt":"a","max_tokens":4000}'
refused 400 '"param":"max_tokens"'
ask /v1/completions '{"prompt":[1,99999]}'
refused 400 'token ids from 0 to 8191'
ask /v1/completions '{"prompt":[[]]}'
refused 400 'prompt'
ask /v1/completions '{"prompt":"a","temperature":-1}'
refused 400 '"param":"temperature"'
ask /v1/completions '{"prompt":"a","stop":[1]}'
refused 400 '"param":"stop"'
ask /v1/completions '{"prompt":"a","n":4,"best_of":2}'
refused 400 '"param":"best_of"'
ask /v1/completions '{"prompt":"a","logit_bias":{"9000":1}}'
refused 400 '"param":"logit_bias"'
ask /v1/chat/completions '{}'
refused 400 '"param":"messages"'
ask /v1/chat/completions '{"messages":[{"role":"king","content":"a"}]}'
refused 400 '"param":"messages"'
ask /v1/chat/completions \
    '{"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function"}]}'
refused 400 '"param":"tools"'
ask /v1/responses '{"input":"a","tools":[{"type":"function","name":"f"}]}'
refused 400 '"param":"tools"'
ask /v1/responses '{"input":[{"role":"user","content":{}}]}'
refused 400 '"param":"input"'
ask /v1/responses '{"input":"a","tool_choice":"required"}'
refused 400 '"param":"tool_choice"'
ask /v1/responses '{"input":"a","previous_response_id":"resp_1"}'
refused 400 '"param":"previous_response_id"'
ask /v1/chat/completions \
    '{"messages":[{"role":"user","content":"a"}],"functions":[{"name":"f"}]}'
refused 400 '"param":"functions"'
ask /v1/embeddings '{}'
refused 501 embeddings
ask /tokenize '{}'
refused 400 "'prompt' is missing"
for name in prompt content text; do
    head -c 300000 /dev/zero | tr '\0' x |
        sed "s/^/{\"$name\":\"/; s/\$/\"}/" >"$work/long"
    status=$(curl -s -o "$work/got" -w '%{http_code}' --data-binary \
        @"$work/long" "$url/tokenize")
    refused 400 "'$name' has 300000 bytes"
done
ask /detokenize '{"tokens":"a"}'
refused 400 '"param":"tokens"'
head -c 3000 /dev/urandom >"$work/garbage"
ask /v1/completions "$(printf '\377\376{')"
refused 400 'no JSON'
awk 'BEGIN { for (i = 0; i < 100; i++) printf "[" }' >"$work/deep"
ask /v1/completions "$(cat "$work/deep")"
refused 400 'nests deeper'
many=$(awk 'BEGIN { for (i = 1; i < 1024; i++) printf "\"a\"," }')
ask /v1/completions "{\"prompt\":[$many\"a\"],\"n\":128,\"seed\":1}" \
    --max-time 60 # not after all of them were made ready
refused 400 '131072 texts at a time are more than may wait'
verdict what_is_wrong_with_a_request_is_told_with_its_field

# Whether its sender asks first, says how much it is, or does not: clients that
# write on hear why all the same.
head -c 40000000 /dev/zero >"$work/large"
for expect in 'Expect: 100-continue' 'Expect:'; do
    status=$(curl -s -o "$work/got" -w '%{http_code}' -H "$expect" \
        --data-binary @"$work/large" "$url/v1/completions")
    refused 413 '--max-body'
done
status=$(curl -s -o "$work/got" -w '%{http_code}' -H 'Expect:' \
    -H 'Transfer-Encoding: chunked' --data-binary @"$work/large" \
    "$url/v1/completions")
refused 413 '--max-body'
verdict a_body_that_is_too_large_is_refused

status=$(curl -s -o "$work/got" -w '%{http_code}' -H 'Host: evil.example' \
    "$url/v1/models")
refused 403 'does not go by the name'
status=$(curl -s -o "$work/got" -w '%{http_code}' \
    -H 'Origin: http://evil.example' -d '{}' "$url/v1/completions")
refused 403 'may not use this server'
status=$(curl -s -o "$work/got" -w '%{http_code}' -H "Origin: $url" \
    -H 'Host: localhost:1' "$url/v1/models")
refused 403 'may not use this server'
verdict strangers_names_and_origins_are_refused

verse='In the beginning God created the heaven and the'
"$sluice" generate -q -m "$model" --top-k 1 --out-seq-length 64 -p "$verse" \
    >"$work/wanted" 2>"$work/err"
ask /v1/completions "{\"prompt\":\"$verse\",\"max_tokens\":53,
    \"temperature\":0,\"echo\":true}"
printf '%b\n' "$(texts)" | cmp - "$work/wanted"
check a_greedy_text_is_that_of_generate
ask /v1/completions "{\"prompt\":[\"春眠不觉晓，\",\"$verse\",\"$verse\"],
    \"max_tokens\":53,\"temperature\":0,\"echo\":true}"
printf '%b\n' "$(texts | sed 1d | uniq)" | cmp - "$work/wanted"
check a_text_among_others_is_the_same

for _ in $(seq 32); do
    curl -s -d '{"prompt":"春眠不觉晓，","max_tokens":40}' -o /dev/null \
        "$url/v1/completions" &
    others="$others $!"
done
ask /v1/completions "{\"prompt\":\"$verse\",\"max_tokens\":53,
    \"temperature\":0,\"echo\":true,\"seed\":5}"
printf '%b\n' "$(texts)" | cmp - "$work/wanted"
check a_text_with_32_others_running_is_the_same
# shellcheck disable=SC2086 # words on purpose
wait $others

"$sluice" generate -q -m "$model" --top-k 1 --out-seq-length 64 \
    -p 'In the beginning [MASK] created the heaven and the earth.' \
    >"$work/wanted" 2>"$work/err"
ask /v1/completions '{"prompt":"In the beginning ","temperature":0,
    "suffix":" created the heaven and the earth.","max_tokens":20}'
grep -qF "In the beginning$(texts) created the heaven" "$work/wanted"
check a_suffix_has_its_blank_filled_as_generate_does
ask /v1/completions '{"prompt":"In [MASK] God created [MASK] earth.",
    "temperature":0,"max_tokens":20}'
grep -q '"blanks":\["[^"]*","[^"]*"\]' "$work/got"
check several_blanks_are_told_apart

curl -sN -d "{\"prompt\":\"$verse\",\"max_tokens\":20,\"temperature\":0,
    \"stream\":true,\"stream_options\":{\"include_usage\":true}}" \
    "$url/v1/completions" >"$work/got"
[ "$(grep -o '"text":"[^"]*"' "$work/got" |
    sed 's/^"text":"//; s/"$//' | tr -d '\n')" = \
    ' earth.\nAnd the earth was without form, and void; and darkness' ] &&
    [ "$(tail -n 2 "$work/got" | head -n 1)" = 'data: [DONE]' ] &&
    grep -q '"completion_tokens":20' "$work/got" &&
    ! grep -v -e '^data: ' -e '^$' "$work/got"
check a_stream_says_the_same_piece_by_piece

ask /v1/completions "{\"prompt\":\"$verse\",\"max_tokens\":40,
    \"temperature\":0,\"stop\":[\"form\",\"the earth was with\"]}"
[ "$(texts)" = ' earth.\nAnd ' ] && grep -q '"finish_reason":"stop"' "$work/got"
check a_stop_text_ends_an_answer_and_is_not_part_of_it

ask /v1/chat/completions '{"messages":[{"role":"user","content":"你好"}],
    "max_tokens":5,"seed":1}'
grep -q '"message":{"role":"assistant","content":"' "$work/got" &&
    grep -q 'not trained to chat' "$work/got"
check a_base_model_chats_and_says_what_it_is

ask /tokenize '{"prompt":"Hello world 你好"}'
grep -q '"tokens":\[521,1087,143,768,69,3076,273\],"count":7' "$work/got" &&
    ask /detokenize '{"tokens":[521,1087,143,768]}' &&
    grep -q '"prompt":"Hello world"' "$work/got" &&
    ask /tokenize '{"text":"Hello [MASK] world\nab"}' &&
    grep -q '"start_lengths":\[6,3\],"mask_positions":\[3,-1\]' "$work/got" &&
    ask /tokenizer_info && grep -q '"eos_token":"</s>"' "$work/got"
check ids_go_to_text_and_back

# The chances of an echo against those of sluice logits: [gMASK] [sop] ids.
ask /v1/completions '{"prompt":[521,1087,143,768,69,3076,273],"echo":true,
    "logprobs":1,"max_tokens":0}'
sed 's/.*"token_logprobs":\[//; s/\].*//; s/,/ /g' "$work/got" >"$work/chances"
gmask=$(printf '{"text":"a"}' | curl -s -d @- "$url/tokenize" |
    sed 's/.*,\([0-9]*\)\]\].*/\1/')
sop=$("$sluice" tokenize -m "$model" '<sop>' 2>/dev/null | tr -d ' ')
printf '{"context":[%s],"answer":[%s,521,1087,143,768,69,3076],
    "mask_position":null,"positions":[0,1,2,3,4,5,6,7]}' "$gmask" "$sop" |
    sed 's/"mask_position":null,//' >"$work/logits.json"
"$sluice" logits -q -m "$model" -i "$work/logits.json" -o "$work/l.npy" \
    2>"$work/err" && tail -c $((7 * 8192 * 4)) "$work/l.npy" |
    od -An -v -tfF -w32768 | awk -v ids='521 1087 143 768 69 3076 273' \
    -v chances="$(cat "$work/chances")" '
    BEGIN { split(ids, id); n = split(chances, c) }
    { m = $1; for (i = 2; i <= NF; i++) if ($i > m) m = $i
      s = 0; for (i = 1; i <= NF; i++) s += exp($i - m)
      d = $(id[NR] + 1) - m - log(s) - c[NR]
      if (d < 0) d = -d
      if (d > 1e-5) { print "id " NR ": off by " d; bad = 1 } }
    END { exit bad || NR != 7 || n != 7 }' >>"$work/err"
check chances_of_an_echo_are_those_of_logits

# lm-eval has one token said besides, and leaves it out: there must be one even
# where it is the end.
eop=$("$sluice" tokenize -m "$model" '<eop>' 2>/dev/null | tr -d ' ')
ask /v1/completions '{"prompt":[521,1087,143,768,69,3076,273],"echo":true,
    "logprobs":1,"max_tokens":1,"logit_bias":{"'"$eop"'":100}}'
grep -q '"finish_reason":"stop"' "$work/got" &&
    sed 's/.*"token_logprobs":\[//; s/\].*//; s/,/ /g' "$work/got" |
    awk -v chances="$(cat "$work/chances")" '
    { bad = NF != 8 || split(chances, c) != 7 || $8 >= -1
      for (i in c) bad = bad || $i != c[i] }
    END { exit bad || NR != 1 }' >>"$work/err"
check an_echo_has_a_chance_of_what_ends_it

ask /v1/messages '{"max_tokens":5,"messages":[{"role":"user",
    "content":[{"type":"text","text":"你好"}]}]}'
grep -q '"content":\[{"type":"text","text":"' "$work/got" &&
    grep -q '"stop_reason":"max_tokens"' "$work/got" &&
    ask /v1/messages/count_tokens \
        '{"messages":[{"role":"user","content":"你好"}]}' &&
    grep -q '^{"input_tokens":9}$' "$work/got" &&
    ask /v1/messages '{"max_tokens":5}' && [ "$status" = 400 ] &&
    grep -q '{"type":"error","error":{"type":"invalid_request' "$work/got"
check messages_have_the_form_of_anthropic
curl -sN -d '{"max_tokens":5,"stream":true,
    "messages":[{"role":"user","content":"你好"}]}' "$url/v1/messages" |
    sed -n '/ping/d; s/^event: //p' | uniq | tr '\n' ' ' >"$work/got"
[ "$(cat "$work/got")" = 'message_start content_block_start '\
'content_block_delta content_block_stop message_delta message_stop ' ]
check a_stream_of_messages_has_its_events_in_order

ask / '{"prompt":"你好","history":[["a","b"]],"max_length":0}'
grep -q '^ *{"response":"' "$work/got" && # blanks where a machine is busy
    grep -q '"history":\[\["a","b"\],\["你好","' "$work/got" &&
    grep -q '"status":200,"time":"2' "$work/got" &&
    ask /generate '{"text":"春眠不觉晓，\nIn the beginning [MASK] God",
        "out_seq_length":20,"topk":1,"seed":7}' &&
    grep -q '^ *{"text":\["处处闻啼鸟。[^"]*"," the"\]}$' "$work/got"
check the_reference_systems_clients_are_answered

ask /v1/responses '{"max_output_tokens":5,"input":"你好"}'
grep -q '"type":"output_text","text":"[^"]' "$work/got" &&
    ask /v1/responses \
        '{"max_output_tokens":400,"input":"你好","background":true}' &&
    id=$(sed 's/^{"id":"\([^"]*\)".*/\1/' "$work/got") &&
    ask "/v1/responses/$id" && [ "$status" = 200 ] &&
    ask "/v1/responses/$id/cancel" '' && [ "$status" = 200 ] &&
    grep -q '"status":"c[a-z]*ed"' "$work/got" &&
    ask /v1/responses/none && [ "$status" = 404 ]
check responses_run_in_the_background_and_are_cancelled

schema='{"type":"object","properties":{"name":{"enum":["xy","z"]},
    "old":{"type":"boolean"}},"required":["name","old"],
    "additionalProperties":false}'
ask /v1/chat/completions "{\"messages\":[{\"role\":\"user\",
    \"content\":\"a\"}],\"max_tokens\":200,\"seed\":1,\"response_format\":{
    \"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",
    \"schema\":$schema}}}"
sed 's/\\[nrt]//g; s/ //g' "$work/got" |
    grep -qE '\{\\"name\\":\\"(xy|z)\\",\\"old\\":(true|false)\}"'
check json_of_a_schema_has_its_form
ask /v1/chat/completions '{"messages":[{"role":"user","content":"a"}],
    "response_format":{"type":"json_schema","json_schema":{"schema":
    {"type":"string","pattern":"a"}}}}'
refused 400 "keyword 'pattern'"
verdict keywords_that_are_not_kept_to_are_refused

curl -si "$url/" >"$work/got"
grep -q "^Content-Security-Policy: default-src 'none'; script-src 'self'" \
    "$work/got" && grep -q '<title>sluice</title>' "$work/got" &&
    curl -s "$url/page.js" | cmp - "$source/src/serve/page/page.js" &&
    curl -s "$url/page.css" | cmp - "$source/src/serve/page/page.css" &&
    ! grep -E 'innerHTML|outerHTML|insertAdjacent|document.write|eval' \
        "$source/src/serve/page/page.js"
check the_page_is_there_and_makes_no_markup_of_answers

# counts WHAT NUMBERS: waits until a counter of /metrics is one of them.
counts()
{
    for _ in $(seq 600); do
        curl -ks -H 'X-Api-Key: secret-key-1' "$url/metrics" >"$work/got"
        ! grep -q "^$1 $2\$" "$work/got" || return 0
        sleep 0.05
    done
    return 1
}

# Ids of a text are asked for as the text is, alone and in a list.
ids=$(printf '{"prompt":"%s"}' "$verse" | curl -s -d @- "$url/tokenize" |
    sed 's/.*"tokens":\(\[[^]]*\]\).*/\1/')
ask /v1/completions "{\"prompt\":[$ids,$ids],\"max_tokens\":20,
    \"temperature\":0,\"seed\":1}"
texts >"$work/first"
ask /v1/completions "{\"prompt\":\"$verse\",\"max_tokens\":20,
    \"temperature\":0,\"seed\":2}"
[ "$(uniq "$work/first")" = "$(texts)" ] && [ "$(texts)" != '' ]
check ids_are_a_context_as_their_text_is

# Asked too much, the references' servers say it in their own words.
ask /generate '' && [ "$status" = 500 ] &&
    grep -qF '{"error":"Config can not be empty.","status":500}' "$work/got" &&
    ask /generate "{\"text\":\"$(yes word | head -n 3000 | tr '\n' ' ')\"}" &&
    [ "$status $(cat "$work/got")" = '200 {"text":["length too long"]}' ]
check what_is_too_much_is_told_as_the_references_do

# A client that leaves: its texts are gone from the passes. One text of 400
# tokens can be over before its client leaves; eight cannot.
curl -sN -d '{"prompt":"a","max_tokens":400,"stream":true,"min_tokens":400,
    "n":8}' "$url/v1/completions" >"$work/got.stream" &
client=$!
counts sluice_texts_active '[1-9][0-9]*' && kill $client &&
    counts sluice_requests_gone_total '[1-9][0-9]*' &&
    counts sluice_texts_active 0
check a_client_that_leaves_ends_its_text

curl -s "$url/metrics" >"$work/got"
grep -q '^sluice_up 1$' "$work/got" &&
    grep -q '^sluice_generated_tokens_total [1-9]' "$work/got"
check metrics_count

ask /v1/completions "{\"prompt\":\"$verse\",\"max_tokens\":7,\"seed\":3}"
cp "$work/got" "$work/first"
ask /v1/completions "{\"prompt\":\"$verse\",\"max_tokens\":7,\"seed\":3}"
cmp "$work/got" "$work/first" &&
    curl -s "$url/metrics" | grep -q '^sluice_requests_kept_total [1-9]'
check the_same_request_gets_the_answer_that_was_kept

# A prompt that another server will not have to read.
long="$verse $verse $verse $verse $verse"
ask /v1/completions "{\"prompt\":\"$long\",\"max_tokens\":5,\"temperature\":0,
    \"seed\":1}"
texts >"$work/first"
stop
check it_ends_with_0_after_SIGTERM

# From here on with TLS, where something makes a certificate.
if command -v openssl >/dev/null && openssl req -x509 -newkey rsa:2048 -nodes \
    -subj /CN=localhost -keyout "$work/key.pem" -out "$work/cert.pem" \
    2>"$work/err"; then
    tls="--tls-cert $work/cert.pem --tls-key $work/key.pem"
fi
rm -f "$work/err"
printf 'secret-key-1\n# no key\nsecret-key-2\n' >"$work/keys"
# shellcheck disable=SC2086 # words on purpose
start --api-key-file "$work/keys" --log "$work/requests" --log-json \
    --keep-prompts "$work/prompts" --key-requests 1 --most-tokens 450 \
    --cors http://a.example --allow-host my.example ${tls:-} &&
    [ "${url%%:*}" = "http${tls:+s}" ]
check it_speaks_TLS_where_it_has_a_certificate
ask /v1/completions "{\"prompt\":\"$long\",\"max_tokens\":5,\"temperature\":0,
    \"seed\":2}" -H 'X-Api-Key: secret-key-1'
texts | cmp - "$work/first" && [ -s "$work/first" ] &&
    counts sluice_prompt_tokens_restored_total '[1-9][0-9]*'
check a_prompt_is_not_read_again_after_a_restart
for file in "$work"/prompts/*.prompt; do
    printf damage | dd of="$file" bs=1 seek=3000 conv=notrunc 2>/dev/null
done
for seed in 3 4; do
    ask /v1/completions "{\"prompt\":\"$long\",\"max_tokens\":5,
        \"temperature\":0,\"seed\":$seed}" -H 'X-Api-Key: secret-key-1'
    texts >"$work/again"
    counts sluice_jobs_done_total $((seed - 1))
    have=${restored:-0}
    restored=$(sed -n 's/^sluice_prompt_tokens_restored_total //p' "$work/got")
done
grep -q damaged "$work/log" && cmp "$work/again" "$work/first" &&
    counts sluice_prompt_tokens_restored_total "$((2 * have))"
check a_damaged_one_is_kept_anew
ask /v1/models
[ "$status" = 401 ] && grep -q authentication_error "$work/got" &&
    ask /v1/completions '{"prompt":"a","max_tokens":2}' \
        -H 'Authorization: Bearer secret-key-3' && [ "$status" = 401 ] &&
    ask /v1/completions '{"prompt":"a","max_tokens":2}' \
        -H 'Authorization: Bearer secret-key-2' && [ "$status" = 200 ] &&
    ask /v1/completions '{"prompt":"a","max_tokens":2}' \
        -H 'X-Api-Key: secret-key-1' && [ "$status" = 200 ] &&
    ask /health && [ "$status" = 200 ] &&
    [ "$(grep -c '"status":401' "$work/requests")" = 2 ] &&
    ! grep -q -e secret -e beginning "$work/requests" "$work/log"
check keys_are_asked_for_and_never_told

# limited STATUS WHAT CURL OPTION...: an answer with a key, and what it has.
limited()
{
    wanted=$1 what=$2
    shift 2
    status=$(curl -ksi -o "$work/got" -w '%{http_code}' \
        -H 'X-Api-Key: secret-key-1' "$@")
    [ "$status" = "$wanted" ] && grep -qF -- "$what" "$work/got" ||
        wrong="$wrong
wanted $wanted $what, got $status $(head -c 600 "$work/got")"
}
limited 204 'Access-Control-Allow-Origin: http://a.example' -X OPTIONS \
    -H 'Origin: http://a.example' "$url/v1/completions"
limited 200 'Access-Control-Allow-Origin: http://a.example' \
    -H 'Origin: http://a.example' "$url/v1/models"
limited 403 --cors -H 'Origin: http://b.example' "$url/v1/models"
limited 200 '"object"' -H 'Host: my.example' "$url/v1/models"
limited 400 'from 0 to 450' -d '{"prompt":"a","max_tokens":451}' \
    "$url/v1/completions"
limited 431 '' -H "X-Long: $(head -c 40000 "$work/large" | tr '\0' x)" \
    "$url/v1/models"
rm "$work/got.stream"
curl -ksN -d '{"prompt":"a","max_tokens":400,"min_tokens":400,"n":64,
    "stream":true}' -H 'X-Api-Key: secret-key-1' "$url/v1/completions" \
    >"$work/got.stream" &
client=$!
until [ -s "$work/got.stream" ]; do
    kill -0 $client || break
    sleep 0.05
done
limited 429 'Retry-After: 1' -d '{"prompt":"a"}' "$url/v1/completions"
kill $client
verdict limits_are_kept_and_told
stop

# Many texts and room for one: who waits is told how long, and who asks what is
# asked already waits for that.
start --progress 1 --parallel 1 --queue 12
long='{"prompt":"a","max_tokens":400,"min_tokens":400,"n":8,"seed":1}'
curl -s -d "$long" -o "$work/got.1" "$url/v1/completions" &
first=$!
counts sluice_queue_texts 7
curl -s -d "$long" -o "$work/got.2" "$url/v1/completions" &
second=$!
counts sluice_requests_joined_total 1 && counts sluice_passes_total '[0-9]*'
check a_request_joins_the_same_one_that_is_under_way
ask /v1/responses '{"input":"a","background":true,"max_output_tokens":4}'
id=$(sed 's/^{"id":"\([^"]*\)".*/\1/' "$work/got")
ask "/v1/responses/$id"
grep -q '"status":"queued".*"progress":{"queue":[1-9]' "$work/got" &&
    grep -q '"done":0.*"seconds_left":[0-9]' "$work/got"
check a_response_tells_its_place_in_the_queue_and_an_estimate
limited 429 'try again in about' -d '{"prompt":"b","n":8}' \
    "$url/v1/completions"
grep -q '^Retry-After: [1-9]' "$work/got"
verdict a_queue_that_is_full_says_when_to_come_again
curl -sN -D "$work/head" -o "$work/got.stream" -d '{"prompt":"b",
    "max_tokens":2,"stream":true}' "$url/v1/completions" &
stream=$!
curl -sN -o "$work/got.whole" -d '{"prompt":"c","max_tokens":2}' \
    "$url/v1/completions" &
whole=$!
for _ in $(seq 600); do
    ! [ -s "$work/got.whole" ] || break
    sleep 0.05
done
kill $first
counts sluice_requests_gone_total 1 && counts sluice_jobs_cancelled_total 0
check a_job_goes_on_while_somebody_waits_for_it
kill $second
wait $stream && wait $whole && grep -q '^X-Expected-Seconds: [0-9]' "$work/head" &&
    head -n 1 "$work/got.stream" | grep -q '^data: {.*"progress":{"queue":[1-9]' &&
    grep -qx 'data: \[DONE\]' "$work/got.stream" &&
    grep -q '^  *{"id":"cmpl-.*}$' "$work/got.whole"
check silence_is_broken_by_data_and_blanks
stop

! start --ram 1M --parallel 1 --ctx 512
least=$(sed -n 's/.*the least that works here is .*(--ram \([0-9]*\)K).*/\1/p' \
    "$work/log")
start --ram $((least + 8192))K && ask /props && [ "$status" = 200 ] &&
    grep -q 'has room for [1-7] texts* of 512 tokens at a time' "$work/log" &&
    grep -q '"total_slots": *[1-7],' "$work/got"
check a_small_budget_has_fewer_texts
stop

! start --ram $((least + 4096))K --parallel 8 && grep -q 'is too small: the least' "$work/log"
check but_no_fewer_than_were_asked_for
pid=

# What AddressSanitizer keeps of freed memory is in no budget.
budget=what_is_asked_and_said_stays_within_the_budget
! grep -q __asan_init "$sluice" || budget=
python3 "$source/tests/serve_load.py" "$sluice" "$model" 20 5 \
    none_is_lost_and_none_waits_long clients_that_die_leave_nothing_behind \
    connections_have_a_limit $budget >"$work/err" 2>&1
check load_and_clients_that_die_or_are_too_many_are_borne
rm -f "$work/err"

# Two of its special tokens, which nothing uses, become those of thinking.
mkdir "$work/hf" && cp "$source"/tests/golden/H_family/glm4_9b_hf/hf/* "$work/hf"
for file in tokenizer.json tokenizer_config.json; do
    sed 's/<|begin_of_image|>/<think>/; s/<|end_of_image|>/<\/think>/' \
        "$source/tests/golden/H_family/glm4_9b_hf/hf/$file" >"$work/hf/$file"
done
"$sluice" convert "$work/hf" --quant f16 -q -o "$work/causal.gguf" \
    2>"$work/err" &&
    python3 "$source/tests/serve_same.py" "$sluice" "$work/causal.gguf" \
        >"$work/err" 2>&1
check long_prompts_come_to_the_same_whatever_is_known_of_them
rm -f "$work/err"

# Its unit for systemd says nothing that systemd does not know.
if command -v systemd-analyze >/dev/null; then
    sed "s|@bindir@/sluice|$(command -v true)|" \
        "$source/src/serve/sluice@.service.in" >"$work/sluice@.service"
    systemd-analyze verify --man=no "$work/sluice@test.service" >"$work/err" 2>&1
    ! grep -F 'sluice@' "$work/err"
    check systemd_understands_its_unit
fi

# Keys are read before the model is there, and these never come to an end.
mkfifo "$work/pipe"
ended=
for signal in TERM INT; do
    "$sluice" serve -m "$model" --port 0 --api-key-file "$work/pipe" \
        2>"$work/err" &
    pid=$!
    exec 9>"$work/pipe" # once it is open there
    kill -$signal $pid
    wait $pid
    ended="$ended$?"
    pid=
    exec 9>&-
done
[ "$ended" = 00 ]
check a_signal_ends_it_before_it_has_loaded

does_not_start()
{
    ! timeout 60 "$sluice" serve -m "$model" --port 0 "$@" 2>"$work/err"
}
yes a-key-of-many | head -c 2000000 >"$work/many.keys"
does_not_start --api-key-file "$work/many.keys" && grep -q 'of keys' "$work/err" &&
    does_not_start --api-key-file /dev/zero && grep -q 'of keys' "$work/err" &&
    does_not_start --api-key-file "$work" && grep -q 'cannot read' "$work/err" &&
    does_not_start --tls-cert /dev/zero --tls-key /dev/zero &&
    grep -q 'no certificate or key' "$work/err" &&
    echo junk >"$work/junk.pem" && does_not_start --tls-cert "$work/junk.pem" --tls-key "$work/junk.pem" &&
    grep -q 'in PEM that TLS can use' "$work/err"
check keys_and_certificates_are_not_taken_from_anything

"$sluice" serve -m "$model" --host 0.0.0.0 --port 0 2>"$work/err"
[ $? = 2 ] && grep -q 'api-key-file' "$work/err"
check other_addresses_need_keys
rm -f "$work/err"
echo "1..$n"
