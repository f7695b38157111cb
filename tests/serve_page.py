"""A browser on the page of 'sluice serve': serve_page.py URL [PICTURE].

Debian's Chromium without a window, driven by python3-selenium; prints TAP. A
picture of the page is left in PICTURE.
"""
import sys

try:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError as why:
    print(f"1..0 # SKIP {why}: python3-selenium")
    sys.exit(0)

url = sys.argv[1]
picture = sys.argv[2] if len(sys.argv) > 2 else None
number = 0

options = webdriver.ChromeOptions()
for word in ("headless=new", "no-sandbox", "disable-gpu",
             "disable-dev-shm-usage", "lang=en-US"):
    options.add_argument("--" + word)
options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
try:
    page = webdriver.Chrome(service=Service("/usr/bin/chromedriver"),
                            options=options)
except Exception as why:  # there is none, or it does not start here
    print(f"1..0 # SKIP no Chromium: {str(why).splitlines()[0]}")
    sys.exit(0)


def wait(what, seconds=120):
    return WebDriverWait(page, seconds).until(lambda _: what())


def at(name):
    return page.find_element(By.ID, name)


def idle():
    return at("go").is_enabled() and not at("stop").is_enabled()


def fill(name, text):
    at(name).clear()
    at(name).send_keys(text)


def case(function):
    global number
    number += 1
    try:
        function()
        print(f"ok {number} - {function.__name__}")
    except Exception as why:  # every failure is one line of TAP
        print(f"not ok {number} - {function.__name__}")
        print("# " + f"{type(why).__name__}: {why}".replace("\n", "\n# "))
    sys.stdout.flush()


@case
def it_says_which_model_it_has():
    page.get(url + "/")
    wait(lambda: "·" in at("model").text)
    assert page.title == "sluice"


@case
def a_blank_is_filled_where_its_mark_stands():
    at("settings").find_element(By.TAG_NAME, "summary").click()
    fill("max_tokens", "12")
    fill("prompt", "In the beginning [MASK] created the heaven.")
    at("go").click()
    wait(idle)
    blank = page.find_element(By.CSS_SELECTOR, "#result .blank")
    assert blank.text.strip() and blank.text != "…", blank.text
    assert at("result").text.startswith("In the beginning ")
    assert at("result").text.endswith("created the heaven.")
    if picture:
        page.save_screenshot(picture)


@case
def an_answer_can_be_stopped_and_the_key_escape_does_it():
    fill("max_tokens", "400")
    page.execute_script("""
        const real = window.fetch;
        window.fetch = (path, o) => real(path, o && o.body ? {...o, body:
            JSON.stringify({...JSON.parse(o.body), min_tokens: 400})} : o);""")
    for stop in (lambda: at("stop").click(),
                 lambda: at("prompt").send_keys(Keys.ESCAPE)):
        fill("prompt", "In the beginning")
        at("prompt").send_keys(Keys.CONTROL, Keys.ENTER)
        wait(lambda: len(at("result").text) > len("In the beginning") + 5)
        stop()
        wait(idle, 10)
        assert at("status").text == "stopped", at("status").text
    page.refresh()
    wait(lambda: "·" in at("model").text)


@case
def a_conversation_goes_on():
    at("settings").find_element(By.TAG_NAME, "summary").click()
    fill("max_tokens", "8")
    at("mode-chat").click()
    for n in 1, 2:
        fill("question", "你好")
        at("go").click()
        wait(idle)
        talk = at("talk").find_elements(By.CLASS_NAME, "user")
        assert len(talk) == n, at("talk").text
    assert at("talk").find_elements(By.CLASS_NAME, "assistant")


@case
def markup_stays_text():
    evil = "<img src=x onerror=\"document.title='gone'\"><script>" \
        "document.title='gone'</script><b>bold</b>"
    at("mode-text").click()
    # What a model might say, by way of what the page hears.
    page.execute_script("""
        const real = window.fetch, evil = arguments[0];
        window.fetch = async (path, ...rest) => {
            if (!String(path).includes("completions"))
                return real(path, ...rest);
            const chat = String(path).includes("chat");
            const choice = chat ? {delta: {content: evil}} : {text: evil};
            return new Response("data: " + JSON.stringify(
                {choices: [choice]}) + "\\n\\ndata: [DONE]\\n\\n");
        };""", evil)
    fill("prompt", evil + " and")
    at("go").click()
    wait(idle)
    assert at("result").text == evil + " and" + evil, at("result").text
    at("mode-chat").click()
    fill("question", evil)
    at("go").click()
    wait(idle)
    assert at("talk").text.count(evil) == 2, at("talk").text
    assert page.title == "sluice"
    for tag in "img", "b":
        assert not page.find_elements(By.TAG_NAME, tag)
    page.execute_script("""
        const s = document.createElement("script");
        s.textContent = "document.title = 'gone'";
        document.body.append(s);""")
    assert page.title == "sluice"  # Content-Security-Policy
    page.refresh()  # history is text too
    wait(lambda: "·" in at("model").text)
    assert page.title == "sluice"
    assert not page.find_elements(By.TAG_NAME, "img")


@case
def history_is_kept_and_comes_back():
    at("history").find_element(By.TAG_NAME, "summary").click()
    items = at("past").find_elements(By.TAG_NAME, "button")
    assert len(items) >= 5, len(items)
    next(b for b in items if b.text.startswith("In the beginning [MASK]")) \
        .click()
    assert at("prompt").get_attribute("value").startswith("In the beginning [")
    assert "created the heaven." in at("result").text


@case
def it_speaks_two_languages_and_fits_a_phone():
    assert at("go").text == "Go"
    at("language").click()
    assert at("go").text == "开始" and at("stop").text == "停止"
    page.refresh()
    wait(lambda: at("go").text == "开始")
    at("language").click()
    assert at("go").text == "Go"
    page.set_window_size(360, 700)
    width = page.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], width


@case
def it_is_dark_where_that_is_wanted():
    def colour():
        return page.execute_script(
            "return getComputedStyle(document.body).backgroundColor")
    seen = set()
    for scheme in "light", "dark":
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": scheme}]})
        seen.add(colour())
    assert len(seen) == 2, seen


@case
def nothing_is_wrong_by_the_browser():
    wrong = [e for e in page.get_log("browser") if e["level"] == "SEVERE"
             and "Content Security Policy" not in e["message"]]
    assert not wrong, wrong


print(f"1..{number}")
page.quit()
