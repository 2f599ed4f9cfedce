-- Wireshark dissector for the protocol of Distributed-Llama, written by "dllama-proto wireshark".
--
-- Put it into a folder of Wireshark's plugins (Help > About > Folders), or: tshark -X lua_script:dllama.lua
-- Connections are found by their greeting, links between workers by the addresses that were greeted; a capture
-- must have the beginning of a session. Filters: dllama.op.code == 5, dllama.slice.layer == 3, dllama.kind, ...

local dllama = Proto("dllama", "Distributed-Llama")
local F = {}

-- What the schemas say ------------------------------------------------------------------------------------

--@SCHEMAS@

-- Fields that no schema has ---------------------------------------------------------------------------------

F["kind"] = ProtoField.string("dllama.kind", "kind")
F["sender"] = ProtoField.uint32("dllama.sender", "sending node")
F["receiver"] = ProtoField.uint32("dllama.receiver", "receiving node")
F["ack"] = ProtoField.string("dllama.ack", "ack")
F["weight.data"] = ProtoField.bytes("dllama.weight.data", "data")
F["weight.data_size"] = ProtoField.uint64("dllama.weight.data_size", "bytes of data here")
F["slice.forward"] = ProtoField.uint32("dllama.slice.forward", "forward")
F["slice.segment"] = ProtoField.uint32("dllama.slice.segment", "segment")
F["slice.sync"] = ProtoField.uint32("dllama.slice.sync", "sync of the segment")
F["slice.layer"] = ProtoField.uint32("dllama.slice.layer", "layer")
F["slice.pipe"] = ProtoField.string("dllama.slice.pipe", "pipe")
F["slice.row"] = ProtoField.uint32("dllama.slice.row", "row")
F["slice.position"] = ProtoField.uint32("dllama.slice.position", "position")
F["slice.start"] = ProtoField.uint32("dllama.slice.start", "first byte of the row")
F["slice.size"] = ProtoField.uint32("dllama.slice.size", "bytes of the row")
F["slice.data"] = ProtoField.bytes("dllama.slice.data", "data")

local listed = {}
for _, field in pairs(F) do
  listed[#listed + 1] = field
end
dllama.fields = listed

local lost_expert = ProtoExpert.new("dllama.lost", "cannot be understood", expert.group.PROTOCOL, expert.severity.WARN)
dllama.experts = { lost_expert }

local f_stream = Field.new("tcp.stream")
local f_syn = Field.new("tcp.flags.syn")
local f_ack = Field.new("tcp.flags.ack")
local f_seq = Field.new("tcp.seq")

-- Names in labels ---------------------------------------------------------------------------------------------

-- Wireshark escapes the values of fields, but shows labels as they are. A name comes from the wire: controls, line
-- separators and marks that turn the writing direction are shown as their bytes (the patterns are UTF-8).
local STEER = { "%c", "\194[\128-\159]", "\226\128[\142\143\168-\174]", "\226\129[\166-\169]" }

local function printable(text)
  for _, pattern in ipairs(STEER) do
    text = text:gsub(pattern, function(found)
      return (found:gsub(".", function(byte) return string.format("\\x%02x", byte:byte()) end))
    end)
  end
  return text
end

-- Reading by schema -------------------------------------------------------------------------------------------

-- Raised (as an error) where more bytes are needed, and where bytes make no sense.
local SHORT, WRONG = {}, {}
local MAX_COUNT = 100000

-- What is read from: the bytes of a buffer from some byte on. A message comes in hundreds of segments, so its
-- reader is a coroutine that waits where bytes are missing, and goes on with the longer buffer.
local Source = {}
Source.__index = Source

function Source.new(tvb, base, may_wait)
  return setmetatable({ tvb = tvb, base = base, may_wait = may_wait }, Source)
end

function Source:range(at, n)
  return self.tvb(self.base + at, n)
end

local function need(source, at, n)
  while source.base + at + n > source.tvb:len() do
    if not source.may_wait then
      error(SHORT, 0)
    end
    coroutine.yield()
  end
end

local READ = {
  u32 = function(source, at) return source:range(at, 4):le_uint() end,
  i32 = function(source, at) return source:range(at, 4):le_int() end,
  u64 = function(source, at) return source:range(at, 8):le_uint64():tonumber() end,
  f32 = function(source, at) return source:range(at, 4):le_float() end,
}
local SIZE = { u32 = 4, i32 = 4, u64 = 8, f32 = 4 }

local parse

-- Reads one field; returns its value and where it ends. With a tree, adds it there.
local function parse_field(field, values, source, at, tree)
  local kind = field.kind
  if SIZE[kind] then
    need(source, at, SIZE[kind])
    if tree then
      tree:add_le(F[field.filter], source:range(at, SIZE[kind]))
    end
    local value = READ[kind](source, at)
    if field.codes and not field.codes[value] then
      error(WRONG, 0)
    end
    return value, at + SIZE[kind]
  elseif kind == "text" then
    need(source, at, 4)
    local n = source:range(at, 4):le_uint()
    if n == 0 and field.may_end then
      return nil, at + 4
    end
    if n == 0 or n > field.max then
      error(WRONG, 0)
    end
    need(source, at + 4, n)
    local value = source:range(at + 4, n):stringz()
    if tree then
      tree:add(F[field.filter], source:range(at, 4 + n), value)
    end
    return value, at + 4 + n
  elseif kind == "bytes" then
    need(source, at, field.size)
    if tree then
      tree:add(F[field.filter], source:range(at, field.size))
    end
    return true, at + field.size
  elseif kind == "record" then
    return parse(field.schema, source, at, tree, field.name)
  elseif kind == "array" then
    local count = values[field.count] + field.plus
    if count < 0 or count > MAX_COUNT then
      error(WRONG, 0)
    end
    local items = {}
    for index = 1, count do
      items[index], at = parse(field.schema, source, at, tree, field.name .. "[" .. (index - 1) .. "]")
    end
    return items, at
  end
  -- A choice: which record it is was said before, and how long.
  local schema = field.cases[values[field.key]]
  if not schema then
    error(WRONG, 0)
  end
  local value, stop = parse(schema, source, at, tree, field.name)
  if stop - at ~= values[field.size] then
    error(WRONG, 0)
  end
  return value, stop
end

-- Reads a record; returns its values and where it ends. A list's end is a record without a name.
parse = function(name, source, at, tree, label)
  local values, start = {}, at
  local branch = tree and tree:add(dllama, source:range(at, 1), label) or nil
  for _, field in ipairs(SCHEMAS[name]) do
    values[field.name], at = parse_field(field, values, source, at, branch)
    if field.may_end and values[field.name] == nil then
      values.is_end = true
      break
    end
  end
  if branch then
    branch:set_len(at - start)
    if values.name then
      branch:append_text(": " .. printable(values.name))
    end
  end
  return values, at
end

-- What the configuration says of slices -----------------------------------------------------------------------

-- Returns the slices that one forward moves from one node to another, in order (sync_plan.py).
local function transfers(session, from, to)
  local result = {}
  for segment_index, segment in ipairs(session.node.segments) do
    local layer
    for _, op in ipairs(segment.ops) do
      if op.name:sub(1, #LAYER_PREFIX) == LAYER_PREFIX then
        layer = op.index
      end
    end
    for sync_index, sync in ipairs(segment.syncs) do
      local pipe = session.net.pipes[sync.pipe_index + 1]
      local row = math.floor(pipe.size.n_bytes / (pipe.size.z * pipe.size.y))
      local start, size
      if sync.sync_type == SYNC_WITH_ROOT then
        if from == 0 then
          start, size = 0, row
        end
      elseif sync.sync_type == SYNC_NODE_SLICES or to == 0 then
        size = math.floor(row / session.net.n_nodes)
        start = from * size
      end
      if size then
        result[#result + 1] = {
          segment = segment_index - 1, sync = sync_index - 1, layer = layer,
          pipe = pipe.name, start = start, size = size,
        }
      end
    end
  end
  return result
end

-- Who is who --------------------------------------------------------------------------------------------------

-- Of this capture: links by TCP stream, sessions, SYNs by where they went, and what was read of each packet.
local links, sessions, dialled, read
-- How often the packet at hand was passed to us.
local n_calls = 0

function dllama.init()
  links, sessions, dialled, read = {}, {}, {}, {}
end

local function endpoint(address, port)
  return tostring(address) .. ":" .. port
end

-- Every packet passes here after it was dissected, and with it the SYNs, in their order.
local watch = Proto("dllama_watch", "Distributed-Llama (who dials whom)")
function watch.dissector(_, pinfo, _)
  n_calls = 0
  local syn, ack = f_syn(), f_ack()
  if not pinfo.visited and syn and syn.value and not ack.value then
    local to = endpoint(pinfo.dst, pinfo.dst_port)
    dialled[to] = dialled[to] or {}
    table.insert(dialled[to], { stream = f_stream().value, from = tostring(pinfo.src) })
  end
end
register_postdissector(watch)

local function new_direction(from, to, turns, phase)
  return { from = from, to = to, turns = turns, phase = phase, forward = 0 }
end

-- Returns a link that may be one between root and worker: its greeting will tell.
local function root_link(pinfo)
  return {
    root = tostring(pinfo.src), worker = tostring(pinfo.dst),
    dialler = endpoint(pinfo.src, pinfo.src_port), listener = endpoint(pinfo.dst, pinfo.dst_port),
    there = new_direction(0, nil, ROOT_TURNS, ROOT_FIRST),
    back = new_direction(nil, 0, WORKER_TURNS, WORKER_FIRST),
  }
end

-- Finds the session that a greeting belongs to, or begins one.
local function join(link, greeting)
  local node = greeting.worker_index + 1
  local session = sessions[#sessions]
  if not session or session.ready or session.n_nodes ~= greeting.n_sockets + 1
      or session.root ~= link.root or session.workers[node] then
    session = {
      n_nodes = greeting.n_sockets + 1, root = link.root,
      workers = {}, listeners = {}, matched = {}, forwards = {},
    }
    sessions[#sessions + 1] = session
  end
  session.workers[node] = link.worker
  session.listeners[link.listener] = node
  link.session, link.there.to, link.back.from = session, node, node
end

-- Gives every connection that was dialled to a worker its dialler: in the order of dialling, by address.
local function match_peers(session, to, listener)
  for _, syn in ipairs(dialled[to] or {}) do
    if not links[syn.stream] then
      for node = 1, listener - 1 do
        local key = node .. ">" .. listener
        if not session.matched[key] and (session.workers[node] or syn.from) == syn.from then
          session.matched[key] = true
          links[syn.stream] = {
            session = session,
            dialler_address = syn.from, listener_end = to,
            there = new_direction(node, listener, PEER_TURNS, "SLICES"),
            back = new_direction(listener, node, PEER_TURNS, "SLICES"),
          }
          break
        end
      end
    end
  end
end

local function peer_link(pinfo, stream)
  for index = #sessions, 1, -1 do
    local session = sessions[index]
    for _, to in ipairs({ endpoint(pinfo.dst, pinfo.dst_port), endpoint(pinfo.src, pinfo.src_port) }) do
      local listener = session.listeners[to]
      if listener and session.net and session.node then
        match_peers(session, to, listener)
        if links[stream] then
          return links[stream]
        end
      end
    end
  end
end

local function direction_of(link, pinfo)
  if link.dialler then
    return endpoint(pinfo.src, pinfo.src_port) == link.dialler and link.there or link.back
  end
  return endpoint(pinfo.dst, pinfo.dst_port) == link.listener_end and link.there or link.back
end

-- What comes next ----------------------------------------------------------------------------------------------

local ACK_NUMBER = tonumber(ACK_VALUE)
local REFUSAL_NUMBER = tonumber(REFUSAL_VALUE)

local function learn(link, direction, message, values)
  local session = link.session
  if message == "Greeting" then
    if values.n_sockets == 0 or values.n_sockets > 255 or values.worker_index >= values.n_sockets then
      error(WRONG, 0)
    end
    join(link, values)
  elseif message == "NetConfig" then
    session.net = values
  elseif message == "NodeConfig" then
    session.node = values
  elseif message == "Ack" and direction.phase == "ROOT_READY" then
    session.ready = true
  end
end

local function slice_unit(link, direction, tvb, at)
  local session = link.session
  direction.transfers = direction.transfers or transfers(session, direction.from, direction.to)
  local forward = session.forwards[direction.forward]
  local transfer = direction.transfers[direction.transfer]
  need(Source.new(tvb, at), 0, transfer.size)
  local unit = {
    kind = "slice", at = at, stop = at + transfer.size, transfer = transfer, row = direction.row,
    forward = direction.forward - 1, position = forward.position + direction.row,
  }
  direction.row = direction.row + 1
  if direction.row == forward.batch_size then
    direction.row, direction.transfer = 0, direction.transfer + 1
    if direction.transfer > #direction.transfers then
      direction.transfer = nil
    end
  end
  return unit
end

-- Begins the slices of the next forward; tells whether there is one.
local function begin_forward(link, direction)
  direction.transfers = direction.transfers or transfers(link.session, direction.from, direction.to)
  if not link.session.forwards[direction.forward + 1] or #direction.transfers == 0 then
    return false
  end
  direction.forward, direction.transfer, direction.row = direction.forward + 1, 1, 0
  return true
end

-- Reads a whole message; goes on where it left off the last time. Raises SHORT and WRONG.
local function read_message(direction, message, tvb, at)
  if not direction.reader then
    local source = Source.new(tvb, at, true)
    direction.source = source
    direction.reader = coroutine.create(function() return parse(message, source, 0) end)
  end
  direction.source.tvb, direction.source.base = tvb, at
  local ok, values, size = coroutine.resume(direction.reader)
  if coroutine.status(direction.reader) == "suspended" then
    error(SHORT, 0)
  end
  direction.reader = nil
  if not ok then
    error(values, 0)
  end
  return values, at + size
end

-- Returns what lies at a byte of what one end says. Raises SHORT and WRONG.
local function next_unit(link, direction, tvb, at)
  if direction.bulk then
    local n = math.min(direction.bulk.left, tvb:len() - at)
    direction.bulk.left = direction.bulk.left - n
    local unit = { kind = "weight_data", at = at, stop = at + n, weight = direction.bulk.weight }
    if direction.bulk.left == 0 then
      direction.bulk = nil
    end
    return unit
  end
  if direction.transfer then
    return slice_unit(link, direction, tvb, at)
  end
  local turn = direction.turns[direction.phase]
  if turn.message == nil then
    -- Only slices are said here: of the next forward, if the root has begun it.
    if direction.phase == "REFUSED" or not begin_forward(link, direction) then
      error(WRONG, 0)
    end
    return slice_unit(link, direction, tvb, at)
  end
  local unit = { kind = turn.kind, at = at, message = turn.message, phase = direction.phase }
  local values
  if turn.message == "Ack" then
    need(Source.new(tvb, at), 0, 4)
    local number = tvb(at, 4):le_uint()
    if number == REFUSAL_NUMBER and turn.next.REFUSAL then
      unit.kind, unit.message = "refusal", "Refusal"
      values, unit.stop = read_message(direction, "Refusal", tvb, at)
      direction.phase = turn.next.REFUSAL
      return unit
    elseif number ~= ACK_NUMBER then
      error(WRONG, 0)
    end
    unit.stop = at + 4
  else
    values, unit.stop = read_message(direction, turn.message, tvb, at)
  end
  learn(link, direction, turn.message, values)
  local signal = turn.signal
  if values and values.is_end then
    unit.kind, signal = "weights_end", "WEIGHTS_END"
  elseif turn.message == "WeightHeader" then
    if values.n_bytes > 0 then
      direction.bulk = { left = values.n_bytes, weight = values.name .. " " .. values.op_index }
    end
  elseif turn.message == "ControlPacket" then
    if values.batch_size == 0 then
      signal = "STOP"
    else
      unit.forward = direction.forward
      if not link.session.forwards[direction.forward + 1] then
        link.session.forwards[direction.forward + 1] = values
      end
      if not begin_forward(link, direction) then
        direction.forward = direction.forward + 1
      end
    end
  end
  direction.phase = turn.next[signal]
  return unit
end

-- Showing ---------------------------------------------------------------------------------------------------------

local function show(unit, link, direction, tvb, tree)
  local branch = tree:add(dllama, tvb(unit.at, unit.stop - unit.at), unit.kind)
  branch:add(F["kind"], tvb(unit.at, unit.stop - unit.at), unit.kind)
  if direction.from and direction.to then
    branch:add(F["sender"], direction.from):set_generated()
    branch:add(F["receiver"], direction.to):set_generated()
  end
  local range = tvb(unit.at, unit.stop - unit.at)
  if unit.kind == "slice" then
    local transfer = unit.transfer
    branch:append_text(": pipe " .. printable(transfer.pipe) .. ", position " .. unit.position)
    branch:add(F["slice.forward"], unit.forward):set_generated()
    branch:add(F["slice.segment"], transfer.segment):set_generated()
    branch:add(F["slice.sync"], transfer.sync):set_generated()
    if transfer.layer then
      branch:add(F["slice.layer"], transfer.layer):set_generated()
    end
    branch:add(F["slice.pipe"], transfer.pipe):set_generated()
    branch:add(F["slice.row"], unit.row):set_generated()
    branch:add(F["slice.position"], unit.position):set_generated()
    branch:add(F["slice.start"], transfer.start):set_generated()
    branch:add(F["slice.size"], transfer.size):set_generated()
    branch:add(F["slice.data"], range)
  elseif unit.kind == "weight_data" then
    branch:append_text(": " .. printable(unit.weight) .. ", " .. range:len() .. " bytes")
    branch:add(F["weight.data_size"], UInt64(range:len())):set_generated()
    branch:add(F["weight.data"], range)
  elseif unit.message == "Ack" then
    branch:append_text(": " .. ACK_NAMES[unit.phase])
    branch:add(F["ack"], range, ACK_NAMES[unit.phase])
  else
    local values = parse(unit.message, Source.new(tvb, unit.at), 0, branch, unit.message)
    if unit.kind == "refusal" then
      branch:append_text(": " .. values.reason)
    end
  end
end

local function summarise(units)
  local names, counts = {}, {}
  for _, unit in ipairs(units) do
    if not counts[unit.kind] then
      names[#names + 1] = unit.kind
    end
    counts[unit.kind] = (counts[unit.kind] or 0) + 1
  end
  for index, name in ipairs(names) do
    if counts[name] > 1 then
      names[index] = name .. " x" .. counts[name]
    end
  end
  return table.concat(names, ", ")
end

-- Reads as much as there is, once; packets are shown any number of times, in any order.
local function read_units(link, direction, tvb)
  local result, at = { units = {} }, 0
  while at < tvb:len() do
    if direction.lost then
      result.lost_at = at
      break
    end
    local ok, unit = pcall(next_unit, link, direction, tvb, at)
    if ok then
      result.units[#result.units + 1] = unit
      at = unit.stop
    elseif unit == SHORT then
      result.short_at = at
      break
    else
      direction.lost = true
      result.lost_at = at
      if unit ~= WRONG then
        error(unit, 0)
      end
    end
  end
  return result
end

function dllama.dissector(tvb, pinfo, tree)
  local link = links[f_stream().value]
  if not link then
    return 0
  end
  local direction = direction_of(link, pinfo)
  -- A packet may end one message and begin another: then this is called for each of them, always in the same
  -- order.
  n_calls = n_calls + 1
  local key = pinfo.number .. "/" .. n_calls
  local result = read[key]
  if not result then
    result = read_units(link, direction, tvb)
    read[key] = result
  end
  pinfo.cols.protocol = "DLLAMA"
  local from, to = direction.from or "?", direction.to or "?"
  pinfo.cols.info:set(from .. " > " .. to .. "  " .. summarise(result.units))
  local branch = tree:add(dllama, tvb())
  branch:append_text(", node " .. from .. " > node " .. to)
  for _, unit in ipairs(result.units) do
    show(unit, link, direction, tvb, branch)
  end
  if result.lost_at then
    branch:add_tvb_expert_info(lost_expert, tvb(result.lost_at))
  end
  if result.short_at then
    pinfo.desegment_offset = result.short_at
    pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
  end
  return tvb:len()
end

-- Finding connections ------------------------------------------------------------------------------------------------

-- Tells whether the first bytes that a dialler sends may begin a greeting; C++ sends it in pieces of 4 bytes.
local function may_greet(tvb)
  if f_seq().value ~= 1 or tvb:len() < 4 then
    return false
  end
  local n_sockets = tvb(0, 4):le_uint()
  if n_sockets == 0 or n_sockets > 255 then
    return false
  end
  local ok, values = pcall(parse, "Greeting", Source.new(tvb, 0), 0)
  if not ok and values ~= SHORT and values ~= WRONG then
    error(values, 0)
  end
  return values == SHORT or (ok and values.worker_index < n_sockets)
end

local function find(tvb, pinfo, tree)
  local stream = f_stream().value
  if not links[stream] and not pinfo.visited then
    if may_greet(tvb) then
      links[stream] = root_link(pinfo)
    else
      peer_link(pinfo, stream)
    end
  end
  if not links[stream] then
    return false
  end
  pinfo.conversation = dllama
  dllama.dissector(tvb, pinfo, tree)
  return true
end

dllama:register_heuristic("tcp", find)
