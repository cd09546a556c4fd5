-- What a browser and its pages ask for, in turn: long heads, a form, files, moved pages, pages that are not there.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

local head = {
   ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
   ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
   ["Accept-Language"] = "en-US,en;q=0.5",
   ["Accept-Encoding"] = "gzip, deflate, br, zstd",
   ["Referer"] = "http://cloud.example.com/index.html",
   ["Cookie"] = "session=0123456789abcdef0123456789abcdef; theme=dark; seen=1",
   ["Upgrade-Insecure-Requests"] = "1",
   ["Sec-Fetch-Dest"] = "document",
   ["Cache-Control"] = "max-age=0",
}
local form = {["Content-Type"] = "application/x-www-form-urlencoded"}
local pieces = {form = string.rep("name=value&", 40)}
local paths = {"/", "/app/list?page=2&sort=name", "/page.html", "/old/page.html", "/none.html", "/style.css", "/app/%7Euser/a%20b"}
local turn = 0

function request()
   turn = turn + 1
   if turn % 8 == 0 then
      return wrk.format("POST", "/app/form", form, pieces.form)
   end
   return wrk.format("GET", paths[turn % #paths + 1], head)
end
