return 1

return 3.99

return -3.99

return 1e300

return 0/0

return 'abc'

return nil

return true

return false

return {1,2,3,'x',{4,5},false,true,nil,9}

return {1,nil,3}

return {ok='fine'}

return {err='My Err'}

return {err='My\r\nErr'}

return {ok='a\nb'}

return {double=3.5}

return {map={a=1}}

return {set={a=1}}

return {big_number='123'}

return {verbatim_string={format='txt',string='abc'}}

return redis.error_reply('x y')

return redis.error_reply('x')

return redis.error_reply('-x y')

return redis.error_reply(1)

return redis.status_reply('x')

return redis.status_reply()

return KEYS

return ARGV

return {KEYS[1], ARGV[2], #KEYS, #ARGV}

return redis.call('set', KEYS[1], ARGV[1])

return redis.call('get', KEYS[1])

return redis.call('get', 'nosuch')

return redis.call('incr', KEYS[1])

return redis.pcall('incr', KEYS[1])

return redis.pcall('incr', KEYS[1]).err

local ok, e = pcall(redis.call, 'incr', KEYS[1]) return {tostring(ok), e, type(e)}

local ok, e = pcall(function() redis.call('incr', KEYS[1]) end) return {tostring(ok), e, type(e)}

return redis.call()

return redis.call({})

return redis.call('set', 'n', 1.5)

redis.call('set', 'n', 1e20) return redis.call('get', 'n')

redis.call('set', 'n', 0.1) return redis.call('get', 'n')

redis.call('set', 'n', 12345678901234567890) return redis.call('get', 'n')

redis.call('del','h') redis.call('hset', 'h', 'a', 1, 'b', 2) return redis.call('hgetall', 'h')

redis.setresp(3) return redis.call('hgetall', 'h')

redis.setresp(3) return type(redis.call('get', 'nosuch'))

redis.setresp(3) redis.call('del','z') redis.call('zadd','z',1.5,'a') return redis.call('zscore','z','a')

redis.setresp(3) return {true,false}

redis.setresp(4)

redis.setresp()

return redis.sha1hex('')

return redis.sha1hex(12)

return redis.sha1hex()

return redis.REDIS_VERSION_NUM

return redis.LOG_WARNING

redis.log(1)

redis.log('x', 'y')

redis.log(10, 'y')

redis.log(redis.LOG_DEBUG, 'y')

return redis.replicate_commands()

return redis.set_repl(redis.REPL_ALL)

return redis.set_repl(9)

return redis.set_repl()

return redis.breakpoint()

return redis.debug('x')

return foo

foo = 1

return redis.nosuch

redis.call = 1

redis = nil

_G.x = 1

setmetatable(_G, {})

rawset(_G, 'x', 1)

getmetatable(_G).__index = nil

string.x = 1

table.insert(redis, 1)

getmetatable('').__index = nil

math.pi = 3

cjson.x = 1

return loadfile

return dofile

return print

return os

return io

return require

return debug

return package

local x x.y = 1

local x x.y.z = 1

local x = {} x.y.z = 1

local x = {} return x.y.z

return x.y

local x = {} x.y()

local x = {} x:y()

local x = {y=1} x.y()

local x = {y=1} x:y()

foo()

local f f()

local f = 5 local function g() f() end g()

local s = 'x' return s + 1

local s = 'x' return 1 + s

local t = {} return t + 1

local t = {} return t.x + 1

local t = {} return 1 + t.x

local t = {} return -t

local t = {} return #t.x

return #nil

return #5

return 'a' .. {}

return {} .. 'a'

local a = nil return 'x' .. a

local t = {} return 'x' .. t.y .. 'z'

return 1 < 'x'

return {} < {}

return {} < 1

return nil < 1

return 'a' < 'b'

return ('x').y.z

local a = {} a[nil] = 1

local a = {} a[0/0] = 1

error('boom')

error('boom', 0)

error('boom', 2)

error({err='My thing'})

error({err='My thing', source='x', line=3})

error()

error(nil)

error(5)

local function f() error('in f') end f()

local function f() error('in f', 2) end f()

local function f() return redis.call('nosuch') end return f()

return redis.call('nosuch')

return redis.pcall('nosuch')

return redis.call('get')

return redis.call('subscribe', 'x')

return redis.call('eval', 'return 1', 0)

return redis.call('multi')

return redis.call('lpush', KEYS[2])

return redis.call('blpop', 'nolist', 0)

assert(false)

assert(nil, 'msg')

assert(false, 'msg')

return {assert(1, 2, 3)}

return select('#', 1, nil, nil)

return {select(2, 'a', 'b', 'c')}

return {select(-1, 'a', 'b', 'c')}

select(0)

return {unpack({1,2,3})}

return {unpack({1,2,3}, 2)}

return {unpack({1,2,3}, 2, 3)}

unpack({}, 1, 1e8)

return {tostring(1), tostring(1.5), tostring(1e15), tostring(1e14), tostring(123456789012345), tostring(1/0), tostring(-1/0), tostring(0/0), tostring(nil), tostring(true), tostring('x')}

return {tostring(0.1), tostring(1/3), tostring(100), tostring(1e100), tostring(1e-5), tostring(123456.789e3), tostring(2^53), tostring(2^63), 2^31 .. ''}

return {tonumber('10'), tonumber(' 10 '), tonumber('0x10'), tonumber('1e2'), tostring(tonumber('')), tostring(tonumber('x')), tonumber('10', 2), tonumber('ff', 16), tonumber('zz', 36), tostring(tonumber('9', 8)), tostring(tonumber('1 1')), tostring(tonumber('0x'))}

return tonumber()

return tostring()

return {type(1), type('x'), type(nil), type({}), type(print == nil), type(function() end), type(cjson.null), type(coroutine.create(function() end))}

return type()

local t = {5,3,8,1} table.sort(t) return t

local t = {5,3,8,1} table.sort(t, function(a,b) return a > b end) return t

local t = {5,'x',8,1} table.sort(t) return t

local t = {3,1,2,3,1,2,5,5,5,9,0,4} table.sort(t, function(a,b) return true end) return t

return table.concat({1,2,3}, ',')

return table.concat({1,{},3}, ',')

return table.concat({1,2,3}, ',', 2, 3)

local t = {1,2,3} table.insert(t, 4) table.insert(t, 1, 0) return t

local t = {1,2,3} return {table.remove(t), table.remove(t, 1), #t}

table.insert({}, 1, 2, 3)

table.insert(nil, 1)

local insert = table.insert insert(nil, 1)

return table.getn({1,2})

return table.maxn({1,2,[10]=3})

return {string.byte('abc', 1, -1)}

return string.char(65, 66)

string.char(256)

return string.rep('ab', 3)

return string.rep('x')

return ('x'):rep(-1)

return ('x'):rep('y')

return {('hello'):sub(2,3), ('hello'):sub(-3), ('hello'):sub(2), ('hello'):sub(0), ('hello'):sub(10)}

return {('hello world'):find('o w'), ('hello'):find('l+'), ('hello'):find('(l)(l)')}

return {('hello'):match('(h)(.)'), ('key=val'):match('(%w+)=(%w+)')}

return {('hello'):gsub('l', 'L')}

return {('hello'):gsub('(l)', '<%1>')}

return {('hello'):gsub('', '-')}

return {('hello world'):gsub('%w+', function(w) return w:upper() end)}

return {('$a $b'):gsub('%$(%w)', {a='1'})}

return {('abc'):gsub('%w', '%0%0', 2)}

return {('abc'):gsub('^a', 'x')}

return ('x'):gsub('(', 'y')

return ('x'):gsub('%', 'y')

return ('x'):gsub('[a', 'y')

return ('x'):gsub('x', '%2')

return ('x'):find('[a-', 1)

return {('THE (quick) fox'):find('%((%a+)%)')}

return {('f(a(b)c)d'):match('%b()')}

return {('THE (quick) fox'):gsub('%f[%a]%a+', 'W')}

local r = {} for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do r[#r+1] = k r[#r+1] = v end return r

return string.format('%d %5d %-5d| %05d %+d %x %X %o %c', 42, 42, 42, 42, 42, 255, 255, 8, 65)

return string.format('%s %10s %-10s| %.2s %q', 'x', 'y', 'z', 'abc', 'a"b\n\0c')

return string.format('%f %.2f %10.3f %e %g %g %g', 1.5, 1.555, 3.14159, 12345.678, 0.0001, 1e20, 100000)

return string.format('%5.1f|%-8.2f|%+.3f|%#x|%#o', 3.14159, 2.5, 1, 255, 8)

return string.format('%d', 3.99)

return string.format('%d', 'x')

return string.format('%y', 1)

return string.format('%')

return string.format('%s')

return string.format('%s', {})

return string.format('%i', 42)

return string.format('%u', -1)

return string.format('%d', 2^53)

return string.format('%5s|%5s', 'toolong', 'x')

return {string.upper('abC'), string.lower('ABc'), string.len('abc'), string.reverse('abc')}

return {math.floor(3.7), math.ceil(3.2), math.max(1,5,3), math.min(4,2), math.abs(-3), math.fmod(7,3), 7 % 3, -7 % 3, 7 % -3}

return {tostring(math.pi), tostring(math.huge), tostring(math.sqrt(2)), tostring(math.exp(1)), tostring(math.log(10)), tostring(5.5 % 2)}

return math.floor('x')

return math.max()

return math.random('x')

return math.random(0)

return math.random(3, 1)

math.random(1,2,3)

return {tostring(math.modf(3.7)), tostring(math.frexp(8)), tostring(math.ldexp(1, 4))}

local s = 0 for i = 1, 10 do s = s + i end return s

local s = 0 for i = 10, 1, -2 do s = s + i end return s

local s = 0 for i = 1, 3 do for j = 1, 3 do if j == 2 then break end s = s + 1 end end return s

for i = 'x', 2 do end

for i = 1, {} do end

for i = 1, 2, {} do end

for k in 5 do end

for k, v in next, nil do end

for k, v in pairs(nil) do end

for k, v in ipairs() do end

local r = {} for k, v in pairs({a=1,b=2,c=3,d=4,e=5,10,20,30}) do r[#r+1] = tostring(k) r[#r+1] = v end return r

local t = {} for i = 1, 20 do t['key' .. i] = i end local r = {} for k, v in pairs(t) do r[#r+1] = k end return r

local t = {} for i = 1, 20 do t[i * 7 % 23] = i end local r = {} for k, v in pairs(t) do r[#r+1] = k end return r

local t = {one=1,two=2,three=3,four=4,five=5,six=6,seven=7,eight=8,nine=9} t.one = nil t.ten = 10 local r = {} for k, v in pairs(t) do r[#r+1] = k end return r

local t = {1,2,3,nil,5} return #t

local t = {1,2,3,nil} return #t

local t = {nil,nil,3} return #t

local t = {n=1,1,2,nil,nil} return #t

local t = {} t[1]=1 t[2]=2 t[4]=4 return #t

local t = {1,2,3,4,5} t[3] = nil t[5] = nil return #t

local i = 0 while true do i = i + 1 if i > 5 then break end end return i

local i = 0 repeat local j = i i = i + 1 until j >= 5 return i

local function fib(n) if n < 2 then return n end return fib(n-1) + fib(n-2) end return fib(15)

local function f(...) return select('#', ...), ... end return {f(1, nil, 3)}

local function f(a, ...) local t = {...} return #t, a end return {f(1, 2, 3)}

local function f(...) return arg.n end return f(1,2,3)

local t = setmetatable({}, {__index = function(t, k) return k .. '!' end}) return t.foo

local t = setmetatable({}, {__newindex = function(t, k, v) rawset(t, k, v * 2) end}) t.x = 5 return t.x

local t = setmetatable({}, {__call = function(self, a) return a + 1 end}) return t(5)

local t = setmetatable({}, {__add = function(a, b) return 'added' end}) return t + 1

local t = setmetatable({}, {__concat = function(a, b) return 'cat' end}) return 'x' .. t

local t = setmetatable({}, {__concat = function(a, b) return 'cat' end}) return 'x' .. t .. 'y' .. 1

local t = setmetatable({}, {__eq = function() return true end}) return t == setmetatable({}, getmetatable(t))

local m = {__lt = function() return true end} return setmetatable({}, m) < setmetatable({}, m)

local m = {__lt = function() return true end} return setmetatable({}, m) <= setmetatable({}, m)

local t = setmetatable({}, {__tostring = function() return 'me' end}) return tostring(t)

local t = setmetatable({}, {__metatable = 'locked'}) setmetatable(t, {})

local t = setmetatable({}, {__unm = function() return 7 end}) return -t

local t = setmetatable({}, {__index = {a = 1}}) return t.a

local a, b = 1, 2 a, b = b, a return {a, b}

local t = {1, 2} local i = 1 i, t[i] = i + 1, 20 return {i, t[1], t[2]}

local a, b, c = (function() return 1, 2, 3 end)() return {a, b, c}

local a, b = ((function() return 1, 2 end)()) return {a, tostring(b)}

return (function(...) return select('#', ...) end)(nil, nil)

local fs = {} for i = 1, 3 do fs[i] = function() i = i + 1 return i end end return {fs[1](), fs[1](), fs[2]()}

local x = 1 do local x = 2 end return x

local f = loadstring('return 1 + 1') return f()

return {loadstring('return +')}

return {loadstring('x =')}

return {loadstring('return "abc')}

return {loadstring('for i = 1 do end', '=name')}

return {loadstring('if x then', '@name')}

return {load(function() return nil end)}

return {pcall(error, 'x')}

return {pcall(error)}

return {pcall(string.rep)}

return {pcall(nil)}

return {pcall()}

return {xpcall(function() error('x') end, function(e) return 'handled ' .. e end)}

return {xpcall(function() return 1, 2 end, function(e) return e end)}

local co = coroutine.create(function(a) local b = coroutine.yield(a + 1) return b * 2 end) local r = {coroutine.resume(co, 1)} local s = {coroutine.resume(co, 10)} local u = {coroutine.resume(co)} return {r[2], s[2], tostring(u[1]), u[2], coroutine.status(co)}

local f = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) return {f(), f(), f()}

local f = coroutine.wrap(function() error('oops') end) f()

local f = coroutine.wrap(function() error({err='tab'}) end) f()

coroutine.yield(1)

return coroutine.running()

local co co = coroutine.create(function() return coroutine.status(co) end) return {coroutine.resume(co)}

coroutine.resume(5)

coroutine.create(redis.call)

return {getmetatable('').__index == string, getfenv() == _G}

local f = function() return x end setfenv(f, {x = 5}) return f()

return collectgarbage('count') > 0

return collectgarbage('collect')

return type(gcinfo())

return type(newproxy(true))

return next({})

return next({}, 'x')

return {rawequal('a', 'a'), rawget({5}, 1), rawequal({}, {})}

return rawlen

return "\65\066\10\n\t\\\"\'\x41"

return [[
line1
line2]]

return [==[a]]b]==] --[[ comment ]] --[==[ other
]==]

return 0x10 + 1e1 + .5 * 4 + 3. 

return 1 .. 2

return 2^3^2

return -2^2

return not nil == true

return 1 and 2 or 3

return nil and 2 or 3

return "a" < "b" and 1 or 2

return 5 --comment

return +1

return 1 +

return )

x = = 1

if x then

for i in do

local 1 = 2

return 'abc

return "abc\

return [[abc

--[[ abc

return 3x

return 0x

return 1e

goto x

break

local function f() return ... end

return a.b:c

a.b

f() = 1

a, f() = 1

local t = {1, 2

local t = {[1} = 2}

function f( end

return "\300"

x = }

do end end

return 'a' == 'a', 2

return @

return ~1

return {1;2,3;}

return #'abc' + #{1,2}

local a <const> = 1

return cjson.encode({1,2,3})

return cjson.encode({a=1,b={c=2},d='x'})

return cjson.encode({})

return cjson.encode({1.5, 1e20, 0.1, 1/3, 123456789012345})

return cjson.encode('a"b\\c/d\n\0\127é')

return cjson.encode({[1]=1,[3]=3})

return cjson.encode({[1]=1,[100]=3})

return cjson.encode({[1.5]=1})

return cjson.encode({[true]=1})

return cjson.encode(function() end)

return cjson.encode(1/0)

return cjson.encode(nil)

return cjson.encode()

return cjson.encode(1, 2)

return cjson.encode(cjson.null)

local t = {} t.t = t return cjson.encode(t)

return cjson.decode('[1,2,{"a":null,"b":[true,false]},"x\\u00e9\\ud83d\\ude00"]')

return cjson.decode('{"a":1}').a

return tostring(cjson.decode('[null]')[1])

return cjson.decode('[1,')

return cjson.decode('{"a"}')

return cjson.decode('{"a":1,}')

return cjson.decode('')

return cjson.decode('nul')

return cjson.decode('"abc')

return cjson.decode('"\\x"')

return cjson.decode('"\\ud800"')

return cjson.decode('[0x10, inf, -nan, +1]')

return cjson.decode('1 2')

return cjson.decode('\0\0')

return cjson.decode()

return cjson.decode(string.rep('[', 1100))

return {cjson._VERSION, cjson._NAME}

return cjson.encode_max_depth()

return cjson.encode_max_depth(0)

return cjson.encode_number_precision(20)

return cjson.encode_sparse_array(true, 2, 3)

cjson.encode_sparse_array(false, 2, 10) return cjson.encode_sparse_array()

return cjson.encode_invalid_numbers('x')

return cjson.encode_keep_buffer()

return cmsgpack.pack(1, 'a', nil, true, {1,2}, {a=1}, 1.5, -1, -200, 70000, 2^40, -2^40, 0.1)

return {cmsgpack.unpack(cmsgpack.pack(1, 'a', false, true, {1,2}, {a=1}, -1, -200, 70000, 2^40, -2^40))}

return cmsgpack.pack()

return cmsgpack.unpack()

return cmsgpack.unpack('\xc1')

return cmsgpack.unpack(string.char(0xc1))

return cmsgpack.unpack(string.char(0x92, 1))

return {cmsgpack.unpack_one(cmsgpack.pack(1,2,3))}

return {cmsgpack.unpack_limit(cmsgpack.pack(1,2,3), 2)}

return {cmsgpack.unpack_one(cmsgpack.pack(1,2,3), 1)}

return {cmsgpack.unpack_one('x', 5)}

return {cmsgpack.unpack_limit('x', -1)}

local t = {} local x = t for i = 1, 20 do x[1] = {} x = x[1] end return cmsgpack.pack(t)

return {cmsgpack._NAME, cmsgpack._VERSION, cmsgpack._COPYRIGHT, cmsgpack._DESCRIPTION}

return struct.pack('>I2hb', 1, -2, 3)

return struct.pack('<i4dfs', 1, 2.5, 3.5, 'abc')

return {struct.unpack('>I2hb', struct.pack('>I2hb', 1, -2, 3))}

return {struct.unpack('<i4dfs', struct.pack('<i4dfs', 1, 2.5, 3.5, 'abc'))}

return {struct.unpack('Bc0', struct.pack('Bc0', 3, 'abc'))}

return struct.size('>I2hb!8d')

return struct.size('s')

return struct.size('c0')

return struct.pack('i40', 1)

return struct.pack('!3', 1)

return struct.pack('?', 1)

return struct.pack('I4')

return struct.unpack('I4', 'abc')

return struct.unpack('s', 'abc')

return struct.unpack('c0', 'abc')

return struct.unpack('I4', 'abcd', 0)

return struct.pack('c5', 'abc')

return {bit.tobit(2^32+5), bit.bnot(0), bit.band(255, 15), bit.bor(1,2,4), bit.bxor(5,3), bit.lshift(1,31), bit.rshift(-1,1), bit.arshift(-8,2), bit.rol(1,33), bit.ror(1,1), bit.bswap(1)}

return {bit.tohex(255), bit.tohex(255, 4), bit.tohex(255, -4), bit.tohex(-1, 100)}

return bit.band()

return bit.band('x')

return bit.lshift(1)

return redis.acl_check_cmd('set', 'x', 'y')

return pcall(function() error({}) end)

return {pcall(function() local x = nil; return x.y end)}

return {pcall(function() return 1 + nil end)}

local t = {} for i = 1, 300 do t[i] = i end return {#t, t[300]}

local function r(n) return r1(n) end return r(1)

local function r(n) return n == 0 and 'done' or r(n - 1) end return r(10000)

local function r(n) local x = r(n + 1) return x end return r(1)

local function r(n) if n == 0 then return 0 end return (r(n - 1)) + 1 end return r(5000)

local a = {} for i=1,260 do a[i] = 'local v' .. i .. ' = 1' end return {loadstring(table.concat(a, '\n'))}

return {loadstring(string.rep('(', 300) .. '1' .. string.rep(')', 300))}

#!lua
return 1

#!lua flags=no-writes,allow-oom
return 1

#!lua flags=bad
return 1

#!lua name=foo
return 1

#!python
return 1

#!lua
return foo

local t = {a = 1} t.b.c = 1

return ({}).x.y

return ((1)).x

local a = {b={}} return a.b.c.d

local a = {} a.b['c'] = 1

local a = {} a[1][2] = 3

local a = {} local k = 'z' return a[k].x

return (nil)()

return ('x')()

return #redis.call

return redis.call .. 'x'

local up = nil local function f() return up.x end return f()

local up = nil local function f() up.x = 1 end return f()

local up = nil local function f() return up + 1 end return f()

return math.floor(1, 2, 3)

return string.sub()

return ('x').sub()

return ('x').sub({})

return string.sub('x', {})

return string.find('x')

return tonumber('z', 99)

return {tonumber('1e1'), tonumber('0x1p4'), tonumber('inf') == math.huge, tonumber('- 1')}

return setmetatable(1, {})

return setmetatable({}, 1)

return setmetatable({})

return getmetatable()

return ipairs()

return rawset({}, 1)

return rawget({})

return xpcall()

return select()

return select('x')

return loadstring()

return table.concat()

return table.concat({}, 1, 2, 3)

return table.concat({1}, {})

return table.sort(1)

return table.sort({1}, 1)

return table.foreach({a=1}, function(k, v) return k end)

return table.foreachi({5,6}, function(i, v) if v == 6 then return i end end)

return table.setn({}, 1)

return string.gfind('x', 'x')

return string.dump(redis.call)

return math.mod(7, 3)

return math.pow(2, 10)

return {('a,b,,c'):gsub(',', ';')}

return {('abc'):gsub('', 'x')}

return {('abc'):gsub('b*', 'x')}

return {('  trim  '):match('^%s*(.-)%s*$')}

return {('2024-01-02'):match('(%d+)-(%d+)-(%d+)')}

return {('abc'):find('b', 1, true), ('a.c'):find('.', 1, true), ('abc'):find('', 10), ('abc'):find('', 4)}

return {('abc'):find('b', -1), ('abc'):find('b', -2)}

return {('aXb'):gsub('%u', '%%')}

return ('x'):gsub('x', {})

return ('x'):gsub('x', function() return {} end)

return ('x'):gsub('x')

return {('äöü'):byte(1, -1)}

return {('()'):find('()', 1, true), ('abc'):match('()b()')}

return ('aaa'):gsub('a', 'b', -1)

return {string.gsub('hello world', 'o', '0', 1)}

return {string.format('%-5s|', 'ab'), string.format('%05.1f', 2.25), string.format('%+5d', 3), string.format('% d', 3)}

return {string.format('%g', 1e15), string.format('%g', 123456789), string.format('%.3g', 1234.5), string.format('%.14g', 0.1), string.format('%.17g', 0.1)}

return {string.format('%s %s', 1, 1.5), string.format('%d', '10'), string.format('%s', nil == nil and 'nil')}

return {string.format('%5%')}

return {string.format('%e', 0), string.format('%.0f', 0.5), string.format('%.0f', 1.5), string.format('%a', 1)}

return {string.format('%x', -1), string.format('%o', -1), string.format('%c', 0)}

return {string.format('%.20f', 0.1), string.format('%.99f', 1/3)}

return string.format('%.100f', 1)

return string.format('%0000000d', 1)
