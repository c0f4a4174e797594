"""What a period after a word means: the words whose period does not end a sentence.

All entries are lower case and without their last period.
"""

# A name or a number always follows: "Mr. Jones", "Dr. Weber".
TITLES = frozenset(
    """
    mr mrs ms mx dr drs prof rev hon st sgt capt cpt cmdr lt col gen maj adm gov sen
    messrs mme mmes mlle mgr fr
    hr frau dipl ing
    sr sra srta ud uds dña
    sig sigg dott dr.ssa avv
    dhr mevr mw
    г-н г-жа проф акад
    """.split()
)

# In the middle of a thought, whatever follows: "e.g. Berlin", "z.B. Hunde".
INNER = frozenset(
    """
    e.g i.e eg ie vs cf viz approx ca
    z.b d.h u.a bzw vgl sog ggf evtl inkl zzgl z.t s.o s.u usw.z
    p.ex c.-à-d p.ej
    bijv d.w.z m.b.t
    т.е т.к т.н напр
    """.split()
)

# Only before a number: "No. 7", "Nr. 12", "Fig. 3"; else "no." is an answer and "art." a noun.
BEFORE_NUMBER = frozenset(
    """
    no nos nr num núm n° p pp pg art sec sect fig figs vol ch chap eq ver par abs s bd kap
    стр рис гл jan feb mar apr jun jul aug sep sept oct nov dec
    """.split()
)

# May end a sentence; a capital letter decides: "Acme Inc. is old." but "I like Acme Inc. They ..."
MAYBE_LAST = frozenset(
    """
    etc inc ltd co corp llc bros dept est al jr sr ph.d m.d b.a m.a b.sc m.sc
    a.m p.m am pm a.d b.c
    usw u.s.w str gmbh mio mrd tsd
    s.a s.l ee.uu
    min max hr hrs sec mi ft lb lbs oz
    ave blvd rd
    др пр руб тыс млн
    """.split()
)

# A capitalised month after "3." makes it an ordinal: "der 3. Juli".
MONTHS = frozenset(
    """
    januar jänner februar märz april mai juni juli august september oktober november dezember
    leden únor březen duben květen červen červenec srpen září říjen listopad prosinec
    januara februara marca aprila maja juna jula augusta septembra oktobra novembra decembra
    """.split()
)

# Words that a new sentence often begins with. After "U.S." or "Plan B." a capital letter alone does
# not tell, since names follow too ("U.S. Army").
STARTERS = frozenset(
    """
    a an the this that these those there here it its it's i i'm i'll i've i'd he he's she she's we
    we're we'll they they're you you're you'll your my our his her their
    and but so or if when while as because although after before since then now however also
    what where who why how which whose
    is are was were do does did can could would will should may might have has had
    let let's please yes no ok okay well thanks thank not
    in on at for to from with by
    der die das ein eine er sie es wir ihr ich und aber oder wenn dann
    le la les un une il elle nous vous je et mais
    el los las una yo nosotros y pero
    """.split()
)
