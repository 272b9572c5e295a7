"""Which classes the icon benchmark has, and which icons belong to each: the written tables.

Written from the names (Unicode's emoji list with its subgroups, the file names of the packs), and
mended by looking at contact sheets where a name had joined the wrong drawing; no model saw a
drawing before. Nothing here may be changed because of an accuracy.

One line a class::

    class name < emoji, emoji | ph + icon icon | fa + icon | fx + icon

- A line that begins with spaces goes on with the line before.
- ``<`` names the emoji (by CLDR short name) that this class is made of. Without it: the emoji
  named like the class. Drawings of the emoji packs join through them.
- ``ph``/``fa``: the icon of Phosphor / Font Awesome named exactly like the class or one of its
  emoji joins by itself; ``+`` adds icons named otherwise; ``-`` says that the exact name is
  another thing there (Phosphor's ``mouse`` belongs to a computer).
- ``fx``, ``om``, ``eo``: the same for fxemoji (which writes names without hyphens and with old
  words), OpenMoji and EmojiOne.

Rules for a line:

1. One class for one thing. Faces, poses, views, ages, sexes, colours and cultural variants of a
   thing are merged with it (tiger face, oncoming bus, Japanese post office). A named kind stays
   a class of its own when its drawing has features of its own (poodle, police car).
2. Names that a person could swap over the same pictogram are merged (cocktail, tropical drink).
3. The name is everyday English, one to three words; the CLDR name where it is that.
4. Every emoji of a topic's subgroups stands either in a line or in ``LEFT_OUT``, with a reason.
   The builder checks it.

Whether a class of these tables enters the benchmark is not decided here: the builder takes all
that at least four design families have drawn.
"""

SUBGROUPS = {
    "animals": (
        "animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug"
    ),
    "food": "food-fruit food-vegetable food-prepared food-asian food-sweet drink",
    "transport": "transport-ground transport-water transport-air hotel",
    "places": "place-map place-geographic place-building place-religious place-other",
    "nature": "plant-flower plant-other sky-weather",
    "leisure": "sport award-medal game event arts-crafts music musical-instrument",
    "home": "household dishware time clothing",
    "office": "tool science medical lock office writing mail book-paper money computer phone"
    " light-video sound",
}
"""Unicode emoji subgroups that make up each task's topic."""

CLASSES = {
    "animals": """
monkey < monkey, monkey face
gorilla
orangutan
dog < dog, dog face | fx + dogside
poodle
wolf | fx + wolfface
fox | fx + foxsmiling
raccoon
cat < cat, cat face, black cat | fx + catside
lion
tiger < tiger, tiger face | fx + tigerside
leopard | fx + leopardside
horse < horse, horse face | fa + horse-head
moose
donkey
unicorn
zebra
deer
bison
cow < cow, cow face
ox < ox, water buffalo
pig < pig, pig face | fx + pigside
boar
sheep < ewe, ram
goat
camel < camel, two-hump camel
llama
giraffe
elephant
mammoth
rhinoceros
hippopotamus | fa + hippo
mouse < mouse, mouse face | ph - | fa - | fx + mouseside
rat
hamster | fx + hampster
rabbit < rabbit, rabbit face | fx + bunny bunnyside
chipmunk
beaver
hedgehog
bat
bear < bear, polar bear
koala
panda | fx + pandaface
sloth
otter
skunk
kangaroo
badger
turkey
chicken
rooster
chick < hatching chick, baby chick, front-facing baby chick
bird < bird, black bird
penguin
dove | fx + doveofpeace
eagle
duck
swan
owl
dodo
flamingo
peacock
parrot
goose
phoenix
frog
crocodile
turtle
lizard
snake
dragon < dragon, dragon face | fx + dragonhead dragonside
sauropod
tyrannosaurus < T-Rex
whale < whale, spouting whale | fx + spurtingwhale
dolphin
orca
seal | ph -
fish < fish, tropical fish | ph + fish-simple | fa + fish-fins
blowfish
shark
octopus
seashell < spiral shell
coral
jellyfish
crab
lobster
shrimp
squid
oyster
snail
butterfly
caterpillar < bug | ph - | fa - | fx + bug
ant
bee < honeybee
beetle | ph + bug-beetle bug | fa + bug
ladybug < lady beetle | fx + ladybeetle
cricket | ph - | eo -
cockroach
spider
scorpion
mosquito
fly
worm
""",
    "food": """
grapes
melon
watermelon
orange < tangerine
lemon
lime | fa -
banana
pineapple
mango
apple < red apple, green apple | fa + apple-whole
pear
peach
cherries
strawberry
blueberries
kiwi < kiwi fruit
tomato
olive
coconut
avocado
eggplant | fx + aubergine
potato
carrot
corn < ear of corn | fx + earofmaize
chili pepper < hot pepper | ph + pepper | fa + pepper-hot | fx + chilipepper
bell pepper
cucumber
lettuce < leafy green
broccoli
garlic
onion
peanuts
beans
chestnut
ginger < ginger root
pea pod
root vegetable
bread | fa + bread-slice
croissant
baguette < baguette bread
flatbread
pretzel
bagel
pancakes
waffle
cheese < cheese wedge
meat < meat on bone, cut of meat
chicken leg < poultry leg | fa + drumstick-bite
bacon
hamburger | fa + burger
french fries
pizza | fa + pizza-slice | fx + sliceofpizza
hot dog | fa + hotdog
sandwich
taco
burrito
tamale
pita < stuffed flatbread
falafel
egg
fried egg < cooking
paella < shallow pan of food
stew < pot of food
fondue
soup < bowl with spoon
salad < green salad
popcorn
butter
salt
canned food
bento box
rice cracker
rice ball | ph + onigiri
rice < cooked rice | fa + bowl-rice
curry < curry rice | fx + curryandrice
noodles < steaming bowl | ph + bowl-steam
spaghetti
sweet potato < roasted sweet potato
oden
sushi
fried shrimp
fish cake < fish cake with swirl | fx + fishcakeswirl
moon cake
dango
dumpling
fortune cookie
takeout box
ice cream < ice cream, soft ice cream
shaved ice
doughnut
cookie | fa + cookie-bite
birthday cake | ph + cake | fa + cake-candles
shortcake
cupcake
pie
chocolate < chocolate bar
candy
lollipop
custard
honey < honey pot
baby bottle
milk < glass of milk
coffee < hot beverage | fa + mug-hot mug-saucer
teapot
tea < teacup without handle
sake | fx + sakebottleandcup
champagne < bottle with popping cork, clinking glasses | ph + cheers | fa + champagne-glasses
wine < wine glass
cocktail < cocktail glass, tropical drink | ph + martini | fa + martini-glass martini-glass-citrus
beer < beer mug, clinking beer mugs | ph + beer-stein beer-bottle | fa + beer-mug-empty
whiskey < tumbler glass | ph + brandy | fa + whiskey-glass
soda < cup with straw
bubble tea
juice box < beverage box
mate
ice
""",
    "transport": """
locomotive | fx + steamlocomotive
train < train, railway car, high-speed train, bullet train, light rail, mountain railway | ph +
  train-simple train-regional | fx + highspeedtrainbulletnose
subway < metro | fa + train-subway
tram < tram, tram car | fa + train-tram
monorail
bus < bus, oncoming bus | fa + bus-simple
trolleybus
van < minibus | fa + van-shuttle
ambulance | fa + truck-medical
fire truck < fire engine
police car < police car, oncoming police car
taxi < taxi, oncoming taxi
car < automobile, oncoming automobile | ph + car-simple car-profile | fa + car-side
SUV < sport utility vehicle | ph + jeep | fx + recreationalvehicle
pickup truck | fa + truck-pickup
truck < delivery truck
semi-trailer truck < articulated lorry | ph + truck-trailer
tractor
racing car | fx + racecar
motorcycle
moped < motor scooter
wheelchair < manual wheelchair, motorized wheelchair
auto rickshaw
bicycle
kick scooter | ph + scooter
skateboard
roller skate
bus stop
road < motorway | ph + road-horizon
railway track
barrel < oil drum
gas pump < fuel pump
wheel | ph + tire
siren < police car light | fx + policecarsrevolvinglight
traffic light < horizontal traffic light, vertical traffic light | ph + traffic-signal
stop sign
barrier < construction | ph + barricade | fa + road-barrier | fx - + constructionsign
anchor
life ring < ring buoy | ph + lifebuoy
sailboat
canoe
speedboat < speedboat, motor boat
ship < ship, passenger ship | ph + boat
ferry
airplane < airplane, small airplane, airplane departure, airplane arrival | ph + airplane-tilt
  airplane-takeoff airplane-landing airplane-in-flight | fa + plane plane-departure plane-arrival
  plane-up
parachute | fa + parachute-box
seat
helicopter
cable car < mountain cableway, aerial tramway
satellite
rocket | ph + rocket-launch
flying saucer
reception bell < bellhop bell | ph + call-bell | fa + bell-concierge
suitcase < luggage | ph + suitcase-rolling | fa + suitcase-rolling
""",
    "places": """
globe < globe showing Europe-Africa, globe showing Americas, globe showing Asia-Australia, globe
  with meridians | ph + globe-hemisphere-east globe-hemisphere-west | fa + earth-europe
  earth-americas earth-asia earth-africa | fx + europeafricaglobe americasglobe asiaaustraliaglobe
  meridianglobe
map < world map | ph + map-trifold
compass
mountain < mountain, snow-capped mountain, mount fuji | ph + mountains | fa + mountain-sun | fx +
  snowmountains
landslide
volcano
tent < tent, camping | fa + campground
beach < beach with umbrella | fa + umbrella-beach | fx + beachumbrella
desert
island < desert island
national park
stadium
bank < bank, classical building | fa + building-columns landmark
construction site < building construction
bricks < brick
rock
hut
house < house, houses, house with garden, derelict house | ph + house-line house-simple | fa +
  house-chimney | fx + housebuilding housebuildings
office building | ph + building-office building | fa + building
post office < post office, Japanese post office | fx + europeanpostoffice
hospital
hotel < hotel, love hotel
store < convenience store, department store | ph + storefront | fa + shop
school
factory | fa + industry
castle < castle, Japanese castle | ph + castle-turret | fx + europeancastle
tower < Tokyo tower | fx + toykotower
Statue of Liberty
church
mosque
Hindu temple < hindu temple | fa + gopuram
synagogue
Shinto shrine < shinto shrine | fa + torii-gate
Kaaba < kaaba
fountain
city < cityscape, cityscape at dusk
sunrise < sunrise, sunrise over mountains | ph + sun-horizon
bridge < bridge at night
hot spring < hot springs
carousel < carousel horse
slide < playground slide
Ferris wheel < ferris wheel
roller coaster
barber pole
circus tent
train station < station
""",
    "nature": """
bouquet | fx + bouquetofflowers
cherry blossom
lotus | ph + flower-lotus | fa + spa
rosette
rose
wilted flower | fa + plant-wilt
hibiscus
sunflower
flower < blossom
tulip | ph + flower-tulip
hyacinth
seedling | ph + plant
potted plant
pine tree < evergreen tree | ph + tree-evergreen | fa + tree | fx + evergreen
tree < deciduous tree | fa -
palm tree | ph + tree-palm
cactus
grain < sheaf of rice | ph + grains | fa + wheat-awn | fx + earofrice
herb
clover < shamrock, four leaf clover
maple leaf
leaf < fallen leaf, leaf fluttering in wind | fx + fallingleaf leaffluttering
nest < empty nest, nest with eggs
mushroom < mushroom, brown mushroom
leafless tree
crescent moon < crescent moon, waxing crescent moon, waning crescent moon | ph + moon | fa + moon
full moon < full moon, full moon face | fx + fullmoonwithface
half moon < first quarter moon, last quarter moon, first quarter moon face, last quarter moon face
new moon < new moon, new moon face | fx + newmoonwithface
thermometer | ph + thermometer-simple | fa + temperature-half
sun < sun, sun with face | fx + sunwithface
planet < ringed planet
star < star, glowing star
shooting star
comet | ph + meteor | fa + meteor
milky way
cloud
partly cloudy < sun behind cloud, sun behind small cloud, sun behind large cloud | ph + cloud-sun
  | fa + cloud-sun
rain cloud < cloud with rain | ph + cloud-rain | fa + cloud-rain cloud-showers-heavy | fx +
  raincloud
snow cloud < cloud with snow | ph + cloud-snow | fx + snowcloud
thunderstorm < cloud with lightning and rain, cloud with lightning | ph + cloud-lightning | fa +
  cloud-bolt | fx + stormcloud
lightning < high voltage | fa + bolt bolt-lightning
tornado
fog | ph + cloud-fog | fa + smog | fx -
wind < wind face
hurricane < cyclone
rainbow
umbrella < umbrella, closed umbrella, umbrella with rain drops | fx + umbrellawithraindrops
snowflake
snowman < snowman, snowman without snow
fire | ph + flame
water drop < droplet | ph + drop
ocean wave < water wave | ph + waves | fa + water
""",
    "leisure": """
soccer ball | fa + futbol
baseball < baseball, softball
basketball
volleyball
American football < american football | ph + football | fa + football
rugby ball < rugby football
tennis | ph + tennis-ball racquet | fx + tennisball
frisbee < flying disc
bowling | ph + bowling-ball | fa + bowling-ball
cricket bat < cricket game | ph + cricket
hockey < field hockey, ice hockey | fa + hockey-puck
lacrosse
table tennis < ping pong | fa + table-tennis-paddle-ball
badminton
boxing glove
judo uniform < martial arts uniform
goal net
golf < flag in hole | fa + golf-ball-tee | fx + flaginhole
ice skate
fishing pole | fx + fishingpoleandfish
diving mask
running shirt
skis | fx + skiandskiboot
sled
curling stone
trophy
medal < military medal, sports medal, 1st place medal, 2nd place medal, 3rd place medal | ph +
  medal-military
dartboard < bullseye | ph + target | fx + directhit
yo-yo
kite
billiard ball < pool 8 ball | fx + billiards
crystal ball
magic wand | fa + wand-magic wand-magic-sparkles
game controller < video game | fa + gamepad
joystick
slot machine
dice < game die | ph + dice-five dice-six | fa + dice-five dice-six dice-d6 | fx -
puzzle piece
teddy bear
piñata
disco ball < mirror ball
nesting dolls
chess pawn
playing card < joker, flower playing cards | fx + playingcardblackjoker
mahjong tile < mahjong red dragon | fx + mahjong
theater masks < performing arts | ph + mask-happy mask-sad | fa + masks-theater
picture frame < framed picture | fx + framewithpicture
palette < artist palette
thread
needle < sewing needle
yarn
knot
sheet music < musical score
musical note < musical note, musical notes | ph + music-note music-notes | fa + music | fx +
  multiplemusicalnotes
microphone < microphone, studio microphone | ph + microphone-stage | fx + studiomic
headphones < headphone
radio
saxophone
trumpet
trombone
accordion
guitar
piano < musical keyboard | ph + piano-keys
violin
banjo
drum < drum, long drum
maracas
flute
harp
jack-o-lantern
Christmas tree
fireworks
sparkler | fx + fireworksparkler
firecracker
balloon
party popper | ph + confetti
confetti ball | fx + confetti
carp streamer
wind chime
red envelope
bow ribbon < ribbon | fa -
awareness ribbon < reminder ribbon | fa + ribbon | fx + reminder
gift < wrapped gift | fx + present
ticket < ticket, admission tickets
""",
    "home": """
door | fa + door-closed door-open
elevator
mirror
window | fx -
bed
couch < couch and lamp
chair
toilet
plunger
shower
bathtub | fa + bath
mousetrap < mouse trap
razor
lotion bottle
safety pin
broom
basket | fa + basket-shopping
toilet paper < roll of paper
bucket
soap
bubbles
toothbrush
sponge
fire extinguisher
shopping cart
chopsticks
fork and knife < fork and knife, fork and knife with plate | ph + fork-knife | fa + utensils | fx
  + forkknife
spoon
kitchen knife | ph + knife | fx + hocho
jar
amphora
hourglass < hourglass done, hourglass not done | fx + hourglassflowingsand
wristwatch < watch
alarm clock | ph + alarm
stopwatch | ph + timer
kitchen timer < timer clock
clock < mantelpiece clock, three o’clock, ten o’clock | fx + manltepiececlock
glasses | ph + eyeglasses
sunglasses | fx - + darksunglasses
goggles
lab coat
safety vest
necktie | fx + tie
t-shirt | fa + shirt | fx + mansshirt
jeans | ph + pants
scarf
gloves
coat
socks | ph + sock
dress
kimono
sari
swimsuit < one-piece swimsuit
briefs
shorts
bikini
blouse < woman’s clothes | fx + womansshirt
hand fan < folding hand fan
purse | fx + pinkwallet
handbag < handbag, clutch bag | ph + handbag-simple
shopping bag < shopping bags | ph + shopping-bag | fa + bag-shopping
backpack | fx + schoolsatchel
sandal < thong sandal, woman’s sandal | fx + sandals
dress shoe < man’s shoe | fx + mensshoe
sneaker < running shoe | ph + sneaker
hiking boot
flat shoe
high heel < high-heeled shoe | fx + heels
ballet shoes
boot < woman’s boot | fx + boot
hair pick
crown | ph + crown-simple
sun hat < woman’s hat | fx + womanshat
top hat
graduation cap
baseball cap < billed cap
military helmet | fa + helmet-un
hard hat < rescue worker’s helmet | fa + helmet-safety
prayer beads
lipstick
ring
gemstone < gem stone | ph + diamond sketch-logo | fa + gem | fx + gem
""",
    "office": """
hammer
axe
pickaxe < pick
dagger | fx + daggerknife
swords < crossed swords | ph + sword
bomb
boomerang
bow and arrow
shield | fa + shield-halved
saw < carpentry saw
wrench
screwdriver
nut and bolt
gear | ph + gear-six
clamp | fx + compression
scales < balance scale | ph + scales | fa + scale-balanced
white cane
link
chains < chains, broken chain
hook
toolbox
magnet
ladder
shovel
alembic
test tube | fa + vial
petri dish
DNA < dna
microscope
telescope
satellite dish < satellite antenna
syringe
blood drop < drop of blood
pill | fa + pills capsules
bandage < adhesive bandage | ph + bandaids
crutch
stethoscope
x-ray
padlock < locked, unlocked, locked with key, locked with pen | ph + lock lock-open | fa + lock
  lock-open | fx + lock openlock
key < key, old key
briefcase
folder < file folder, open file folder | ph + folder folder-open | fa + folder folder-open | fx +
  folder openfilefolder
calendar < calendar, tear-off calendar, spiral calendar | ph + calendar-blank | fa + calendar-days
  | fx + spiralcalendarpad
notepad < spiral notepad
line chart < chart increasing, chart decreasing | ph + chart-line | fa + chart-line | fx +
  chartupwardstrend chartdownwardstrend
bar chart | ph + chart-bar | fa + chart-simple chart-column
clipboard
pushpin < pushpin, round pushpin | ph + push-pin | fa + thumbtack | fx + blackpushpin
paperclip < paperclip, linked paperclips
ruler < straight ruler, triangular ruler
scissors | fx + blackscissors
card index < card index, card index dividers, card file box
filing cabinet < file cabinet
trash can < wastebasket | ph + trash | fa + trash trash-can
pencil
fountain pen < fountain pen, black nib | ph + pen-nib | fa + pen-nib pen-fancy | fx + blacknib
  lowerleftfountainpen
pen | fx + lowerleftpen
paintbrush | ph + paint-brush | fx + lowerleftpaintbrush
crayon | fx + lowerleftcrayon
memo | ph + note-pencil | fa + pen-to-square
envelope < envelope, incoming envelope, envelope with arrow, e-mail
tray < outbox tray, inbox tray | ph + tray | fa + inbox | fx + inboxtray outbox
package | fa + box
mailbox < closed mailbox with raised flag, closed mailbox with lowered flag, open mailbox with
  raised flag, open mailbox with lowered flag | fx + closedmailboxlowered closedmailboxraised
  openmailboxlowered openmailboxraised
postbox
ballot box < ballot box with ballot | fx + ballottboxwithballott
notebook < notebook, notebook with decorative cover, ledger
book < closed book, open book, green book, blue book, orange book | ph + book book-open | fa +
  book book-open
books
scroll | om -
document < page facing up, page with curl | ph + file file-text | fa + file file-lines
newspaper < newspaper, rolled-up newspaper
bookmark < bookmark, bookmark tabs
tag < label | ph + tag | fa + tag
coin | ph + coins coin-vertical | fa + coins
money bag | fa + sack-dollar
treasure chest
banknote < yen banknote, dollar banknote, euro banknote, pound banknote | ph + money | fa +
  money-bill | fx + banknoteyen banknotedollar banknoteeuro banknotepound
credit card
receipt
battery | ph + battery-full battery-high
electric plug | ph + plug | fa + plug
laptop | fx -
desktop computer | ph + desktop | fa + desktop computer
printer | fa + print
keyboard | fx - + wiredkeyboard
computer mouse | ph + mouse | fx + threebuttonmouse onebuttonmouse twobuttonmouse
trackball
floppy disk | fx + blackhardshellfloppy softshellfloppy
compact disc < optical disk, dvd | ph + disc | fa + compact-disc | fx + opticaldisc dvd
abacus
mobile phone < mobile phone, mobile phone with arrow | ph + device-mobile | fa + mobile
  mobile-screen | fx + cellphone
telephone < telephone, telephone receiver | ph + phone | fa + phone | fx + blacktelephone
  telephonereceiver2
pager
fax machine | fa + fax
movie camera
film strip < film frames | fa + film
film projector
clapperboard < clapper board | ph + film-slate | fa + clapperboard
television | fa + tv
camera < camera, camera with flash
video camera | fa + video | fx + handheldvideocamera
videocassette | fx + videocasette
magnifying glass < magnifying glass tilted left, magnifying glass tilted right | ph +
  magnifying-glass | fa + magnifying-glass | fx + leftmagnifyingglass rightmagnifyingglass
candle
light bulb | ph + lightbulb | fa + lightbulb | fx + lightbulb
flashlight | fx + electrictorch
paper lantern < red paper lantern | fx + izakayalantern
diya lamp
loudspeaker < muted speaker, speaker low volume, speaker medium volume, speaker high volume | ph +
  speaker-high speaker-low | fa + volume-high volume-low | fx + speaker rightspeaker
  speaker3soundwaves
megaphone < megaphone, loudspeaker | fa + bullhorn | fx + bullhorn bullhornwithsoundwaves
horn < postal horn
bell < bell, bell with slash
""",
}

LEFT_OUT = {
    "part or trace of an animal, not an animal": (
        "pig nose, paw prints, feather, wing, spider web, microbe"
    ),
    "another class in a role or scene": "guide dog, service dog, sun behind rain cloud,"
    " umbrella on ground, hammer and pick, hammer and wrench, chart increasing with yen,"
    " money with wings, identification card",
    "mixture or pouring, not one thing": "pouring liquid, sparkles",
    "a scene that differs from its neighbours by the hour only": "foggy, night with stars, sunset",
    "no everyday English name": "suspension railway, tanabata tree, pine decoration,"
    " Japanese dolls, moon viewing ceremony, white flower, computer disk",
    "named after a country": "map of Japan",
    "an event": "wedding",
    "a material": "wood",
    "drawn as two different things": "water pistol",
    "abstract sign": "spade suit, heart suit, diamond suit, club suit, level slider,"
    " control knobs, low battery",
    "between two other moons": "waxing gibbous moon, waning gibbous moon",
    "one clock face is enough": "twelve o’clock, twelve-thirty, one o’clock, one-thirty,"
    " two o’clock, two-thirty, three-thirty, four o’clock, four-thirty, five o’clock,"
    " five-thirty, six o’clock, six-thirty, seven o’clock, seven-thirty, eight o’clock,"
    " eight-thirty, nine o’clock, nine-thirty, ten-thirty, eleven o’clock, eleven-thirty",
}
"""Emoji of the topics' subgroups that belong to no class, by reason (rule 4)."""
