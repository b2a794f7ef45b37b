#include "core/reply.h"
